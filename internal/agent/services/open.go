package services

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"weft/internal/agent/facts"
	"weft/internal/agent/filter"
	"weft/internal/agent/flows"
	"weft/internal/agent/healthports"
	"weft/internal/agent/loop"
	"weft/internal/agent/rules"
	"weft/internal/api"
	"weft/internal/kernel/conntrack"
	kernelxt "weft/internal/kernel/xt"
	"weft/internal/relay"
)

// Options say what the services are planned from.
type Options struct {
	Log      *slog.Logger
	Settings *facts.InForce
	Leases   Leases
	// Cluster is asked in each step; false: not known yet, so nothing may be removed. Whole is the same for others than the step.
	Cluster, Whole func() (api.Snapshot, bool)
	Healing        *loop.Healing // is told of repairs
}

// Open opens what programs the packet filter and the services. A kernel without nf_tables is an error in mode nftables only.
func Open(mode facts.ProxyMode, o Options) (*Loop, error) {
	table, missing, err := openTables(mode)
	if err != nil {
		return nil, err
	}
	if missing != nil {
		o.Log.Warn("there is no edge check on this host: packets are taken from everybody", "why", missing)
	}
	engine := relay.New(relay.Options{Log: o.Log})
	p := &Loop{
		log: o.Log, settings: o.Settings, setting: o.Settings.Get, generation: o.Settings.Generation, leases: o.Leases,
		cluster: o.Cluster, whole: o.Whole, healing: o.Healing,
		xt: kernelxt.Kernel{}, relay: engine, engine: engine, ready: make(chan struct{}), noTables: missing,
		flows: flows.New(o.Log, &conntrack.Table{}),
		turn:  turn{again: make(chan struct{}, 1), sessions: func() int { return throughRules(engine.Connections()) }},
	}
	p.health = healthports.New(o.Log, func() bool { return p.syncs.Healthy(time.Now()) })
	p.guards.Expired = make(chan struct{}, 1)
	if table != nil {
		p.nft, p.writer, p.chains, p.tables = table, table.Writer, table.BaseChains, table
		p.xt = kernelxt.Kernel{Around: table.Own} // our own changes are no reason to look whether the rules are as planned
	}
	return p, nil
}

// Close closes the relay's listeners and what the kernel was asked through. What is programmed stays.
func (p *Loop) Close() error {
	err := p.engine.Close()
	if p.tables != nil {
		err = errors.Join(err, p.tables.Close())
	}
	p.health.Close()
	return err
}

// burstGap is how far apart transactions for changed services begin at least: what changes meanwhile is in one.
const burstGap = 5 * time.Millisecond

// Start runs the loop until ctx ends: run starts what goes on beside the caller. The triggers are those for leases and services.
func (p *Loop) Start(ctx context.Context, run func(func() error), triggers ...loop.Trigger) error {
	run(func() error { return p.flows.Run(ctx) })
	if other, ok, err := kernelxt.Other(ctx); err != nil {
		p.log.Warn("the host's other iptables is not looked at", "err", err)
	} else if ok {
		p.other = filter.Filter{K: other, Name: "iptables-" + other.Variant}
	}
	l := loop.Loop{Name: "services", Step: p.Step, Every: loop.FullCheck, Gap: burstGap, Healing: p.healing, Log: p.log, Triggers: append(triggers,
		loop.On(p.settings.Subscribe(), loop.ByHost), loop.On(p.guards.Expired, loop.ByPlan), loop.On(p.turn.again, loop.ByPlan))}
	if p.tables != nil {
		watched, err := watchRules(ctx, p.tables)
		if err != nil {
			return err
		}
		l.Triggers = append(l.Triggers, watched...)
	}
	run(func() error { return l.Run(ctx) })
	return nil
}

// Possible refuses a mode that this host can't do.
func (p *Loop) Possible(ctx context.Context, mode facts.ProxyMode) error {
	if mode == facts.NFTables && p.noTables != nil {
		return fmt.Errorf("--proxy-mode=%s: %w: choose another mode", mode, p.noTables)
	}
	if !rules.ModeNamed(mode).Table {
		if _, err := p.xt.Read(ctx); err != nil {
			return fmt.Errorf("--proxy-mode=%s: this host's iptables can't be used: %w: choose another mode", mode, err)
		}
	}
	return nil
}
