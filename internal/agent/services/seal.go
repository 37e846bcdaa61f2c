package services

import (
	"errors"
	"fmt"
	"reflect"
	"slices"

	"weft/internal/agent/facts"
	"weft/internal/agent/guard"
	"weft/internal/nft"
	"weft/internal/overlay/edge"
)

// errNoSeal says that an encrypted network is not programmed because packets could leave it in clear.
var errNoSeal = errors.New("backend wireguard: the rules that keep packets for pods from leaving in clear are not in force")

// Seal has the rules in force that an encrypted network needs, before anything of it is planned. It adds them to what table inet weft
// holds: the services may not be known yet. The loop of the rules keeps them from then on.
func (p *Loop) Seal(f facts.Facts) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	want := guard.SealOf(f)
	if !f.Sealed() || f.Turning {
		p.sealed = edge.Seal{}
		return nil
	}
	if reflect.DeepEqual(want, p.sealed) {
		return nil
	}
	if p.noTables != nil {
		return fmt.Errorf("%w: %w", errNoSeal, p.noTables)
	}
	have, err := p.nft.Outline(nft.INet, nft.TableName)
	if err != nil {
		return fmt.Errorf("%w: %w", errNoSeal, err)
	}
	if err := p.nft.Apply(nft.Diff(added(have, edge.Rules(edge.Config{Seal: want})), have)); err != nil {
		return fmt.Errorf("%w: %w", errNoSeal, err)
	}
	p.sealed = want
	p.log.Info("the network is encrypted: packets for pods leave by its devices only", "networks", want.Networks, "devices", want.Devices)
	return nil
}

// added is the table with the chains in it, in place of those of the same names.
func added(have *nft.Table, more nft.Table) nft.Table {
	if have == nil {
		return more
	}
	t := *have
	t.Chains = slices.DeleteFunc(slices.Clone(have.Chains), func(c nft.Chain) bool { return more.Chain(c.Name) != nil })
	t.Chains = append(t.Chains, more.Chains...)
	t.Sort()
	return t
}
