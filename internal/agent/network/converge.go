package network

import (
	"context"
	"log/slog"
	"slices"

	"weft/internal/agent/loop"
	"weft/internal/kernel"
	"weft/internal/netstate"
)

// passes bounds how often a state is applied: a link that was just made brings parameters to life that could not be read before.
const passes = 2

// converge brings a network namespace to the wanted state and reads back: it returns the ops it applied, and an error that
// names what could not be done or still differs. Ops that hold says yes to
// are not done; nil holds none back.
func converge(ctx context.Context, n *kernel.Netns, want netstate.State, hold func(netstate.Op) bool) ([]netstate.Op, error) {
	want = want.Select(func(o netstate.Object) bool { return kernel.Applies(o.Kind()) })
	var done []netstate.Op
	for range passes {
		ops, err := difference(ctx, n, want, hold)
		if err != nil || len(ops) == 0 {
			return done, err
		}
		done = append(done, ops...)
		if err := n.Apply(ctx, ops); err != nil {
			return done, err
		}
	}
	left, err := difference(ctx, n, want, hold)
	if err == nil && len(left) > 0 {
		e := &loop.UndoneError{What: "objects", First: left[0].String()}
		for _, op := range left {
			e.Objects = append(e.Objects, nameOf(op.Object))
		}
		err = e
	}
	return done, err
}

func difference(ctx context.Context, n *kernel.Netns, want netstate.State, hold func(netstate.Op) bool) ([]netstate.Op, error) {
	have, err := n.Read(ctx, want)
	if err != nil {
		return nil, err
	}
	ops := netstate.Diff(want, have)
	if hold != nil {
		ops = slices.DeleteFunc(ops, hold)
	}
	return ops, nil
}

// logOps says what was applied: the count always, each op for those who debug.
func logOps(log *slog.Logger, what string, ops []netstate.Op) {
	if len(ops) == 0 {
		return
	}
	log.Info("applied", "what", what, "ops", len(ops))
	for _, op := range ops {
		log.Debug("op", "what", what, "op", op.String())
	}
}
