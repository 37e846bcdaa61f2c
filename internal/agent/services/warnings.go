package services

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"weft/internal/agent/filter"
	"weft/internal/agent/others"
	"weft/internal/agent/rules"
	kernelnft "weft/internal/kernel/nft"
	"weft/internal/nft"
)

// warnings says what of others stops pods' packets, as far as it can be told without knowing what every rule of others means.
func (p *Loop) warnings() []string {
	p.warned.Lock()
	defer p.warned.Unlock()
	if now := time.Now(); now.Sub(p.warned.at) > warningsKept {
		p.warned.at, p.warned.list = now, p.findWarnings()
	}
	return p.warned.list
}

// warningsKept is how long warnings are answered without looking again: tables of others may be large.
const warningsKept = 5 * time.Second

// warned is the warnings as they were found last.
type warned struct {
	sync.Mutex
	at   time.Time
	list []string
}

func (p *Loop) findWarnings() []string {
	p.mu.Lock()
	var flannel, proxies []string
	out, serves := p.balance.Texts(), rules.ModeNamed(p.turn.standing).Services
	for _, f := range []*filter.Filter{&p.main, &p.other} {
		stop, left, serve := f.Found()
		out, flannel, proxies = append(out, stop...), append(flannel, left...), append(proxies, serve...)
	}
	if p.otherErr != "" {
		out = append(out, p.other.Name+": "+p.otherErr)
	}
	out = slices.Concat(out, p.localhost.warnings(), p.health.Warnings())
	list, read := p.chains, p.nft.Outline
	p.mu.Unlock()
	var all []kernelnft.BaseChain
	if list != nil {
		var err error
		if all, err = list(nft.Forward); err != nil {
			out = append(out, err.Error())
		}
	}
	out = others.WarnFlannel(out, append(flannel, others.FlannelTablesLeft(all)...))
	if serves {
		out = others.WarnKubeProxy(out, append(proxies, others.ServingTables(all)...))
	}
	for _, c := range all {
		if stops(c, read) {
			out = append(out, fmt.Sprintf("%s, at hook forward, drops what its own rules do not accept: an accept of weft or of iptables does not "+
				"overrule it. Accept packets from and to the pod network there", c))
		}
	}
	return out
}

// stops reports whether a base chain of others ends in dropping: by its policy, or by its last rule.
func stops(c kernelnft.BaseChain, read func(nft.Family, string) (*nft.Table, error)) bool {
	iptables := c.Table == "filter" && c.Name == "FORWARD" && c.Family != nft.INet
	if ours := c.Table == nft.TableName && c.Family == nft.INet; c.Base.Type != nft.Filter || ours || iptables {
		return false // in those of iptables we have a rule
	}
	if c.Base.Drop {
		return true
	}
	t, err := read(c.Family, c.Table)
	if err != nil || t == nil {
		return false
	}
	full := t.Chain(c.Name)
	return full != nil && len(full.Rules) > 0 && dropsAll(full.Rules[len(full.Rules)-1])
}

// dropsAll reports whether a rule drops or rejects every packet.
func dropsAll(r nft.Rule) bool {
	for _, s := range r.Statements {
		switch s := s.(type) {
		case nft.Counter:
			continue
		case nft.Reject:
			return true
		case nft.Verdict:
			return s.Kind == nft.Drop
		}
		return false
	}
	return false
}
