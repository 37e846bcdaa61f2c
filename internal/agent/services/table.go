package services

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"

	"weft/internal/agent/loop"
	"weft/internal/nft"
	"weft/internal/proxy/nftables"
)

// tableEngine is kernel/nft as the agent uses it.
type tableEngine interface {
	Outline(family nft.Family, name string) (*nft.Table, error) // without elements
	Compare(want *nft.Table) ([]nft.Op, error)
	Apply(ops []nft.Op) error
	Forget(family nft.Family, table string, s nft.Set, gone func(nft.Element) bool) (int, error)
}

// applyTable brings table inet weft to the plan in p.table, by the ops of what changed in the plan. The kernel does them in one
// transaction or says which it refused, so nothing is read back. When the step before failed, when there was no table, or when somebody
// else may have changed it, it is read and compared instead.
func (p *Loop) applyTable(due loop.Cause, ops []nft.Op) (loop.Work, error) {
	if p.noTables != nil {
		return loop.Work{}, nil
	}
	wasOK := p.tableOK
	known := wasOK && due&(loop.ByKernel|loop.ByHost|loop.ByTime) == 0 && !p.table.RetriesRefused(ops)
	switch {
	case known && len(ops) == 0:
		return loop.Work{}, nil
	case known && p.tableIs && !p.table.Merge.Empty():
		w := loop.Work{Ops: p.logTable(slog.LevelDebug, ops)}
		err, alone := p.table.Attributed(p.transact(ops), false)
		p.tableOK = alone
		return w, errors.Join(err, p.forgetClients(ops))
	}
	var mine map[string]bool
	if wasOK {
		mine = objectNames(ops)
	}
	all, err := p.wholeTable(ops)
	err, alone := p.table.Attributed(err, true)
	p.tableOK, p.tableIs = alone, !p.table.Merge.Empty()
	err = errors.Join(err, p.forgetClients(all))
	w := loop.Work{}
	for _, op := range all {
		w.Ops += op.Count()
	}
	if wasOK {
		w.Repaired = foreign(all, mine)
	}
	return w, err
}

// wholeTable brings the table to the plan, whatever it is like, and returns the ops that this took. planned are the ops of the last update of
// the plan: they are all there is to do when it was the first and there is no table, and then nothing needs to be compared.
func (p *Loop) wholeTable(planned []nft.Op) ([]nft.Op, error) {
	if p.table.Last.First && len(planned) > 0 {
		have, err := p.nft.Outline(nft.INet, nft.TableName)
		if err != nil {
			return nil, fmt.Errorf("read table inet weft: %w", err)
		}
		if have == nil {
			made := nft.Op{Verb: nft.Add, Kind: nft.KindTable, Family: nft.INet, Table: nft.TableName}
			return p.applyWhole(append([]nft.Op{made}, planned...))
		}
	}
	ops, err := p.tableDiff(p.table.Unsorted())
	if err != nil || len(ops) == 0 {
		return nil, err
	}
	return p.applyWhole(ops)
}

// applyWhole applies ops and returns them. The kernel does all of them or says which not, so they are not read back: that would cost as
// much again.
func (p *Loop) applyWhole(ops []nft.Op) ([]nft.Op, error) {
	p.logTable(slog.LevelInfo, ops)
	return ops, p.transact(ops)
}

// forgetClients makes the kernel forget the clients of endpoints that the ops may have taken from services with session affinity: they
// would be sent there until their time is out.
func (p *Loop) forgetClients(ops []nft.Op) error {
	if p.table.Merge == nil || !nftables.Sticky(ops) {
		return nil
	}
	var errs []error
	for _, s := range nftables.Remembered() {
		n, err := p.nft.Forget(nft.INet, nft.TableName, s, nftables.Stale(s, p.table.Merge.Element))
		if n > 0 {
			p.log.Info("forgot clients of endpoints that are gone", "clients", n)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// objectNames are the objects that ops are about.
func objectNames(ops []nft.Op) map[string]bool {
	out := make(map[string]bool, len(ops))
	for _, op := range ops {
		out[objectName(op)] = true
	}
	return out
}

// foreign names the objects of the ops that are not among mine.
func foreign(all []nft.Op, mine map[string]bool) []string {
	var out []string
	for _, op := range all {
		if name := objectName(op); !mine[name] && !slices.Contains(out, name) {
			out = append(out, name)
		}
	}
	return out
}

// objectName is the table, chain or set an op is about.
func objectName(op nft.Op) string {
	at := string(op.Family) + " " + op.Table
	switch op.Kind {
	case nft.KindChain, nft.KindRules:
		return "nftables chain " + at + " " + op.Chain.Name
	case nft.KindSet, nft.KindElements:
		return "nftables set " + at + " " + op.Set.Name
	}
	return "nftables table " + at
}

// logTable says what is applied and returns how much it is.
func (p *Loop) logTable(level slog.Level, ops []nft.Op) int {
	n := 0
	each := p.log.Enabled(context.Background(), slog.LevelDebug)
	for _, op := range ops {
		n += op.Count()
		if each {
			p.log.Debug("op", "what", "nftables", "op", op.String())
		}
	}
	if n > 0 {
		p.log.Log(context.Background(), level, "applied", "what", "nftables", "ops", n)
	}
	return n
}

// tableDiff is what is left to do for the table; nil: there shall be none.
func (p *Loop) tableDiff(want *nft.Table) ([]nft.Op, error) {
	if want != nil {
		ops, err := p.nft.Compare(want)
		if err != nil {
			return nil, fmt.Errorf("compare table inet weft: %w", err)
		}
		return ops, nil
	}
	have, err := p.nft.Outline(nft.INet, nft.TableName)
	if err != nil {
		return nil, fmt.Errorf("read table inet weft: %w", err)
	}
	if have == nil {
		return nil, nil
	}
	return []nft.Op{{Verb: nft.Del, Kind: nft.KindTable, Family: nft.INet, Table: nft.TableName}}, nil
}
