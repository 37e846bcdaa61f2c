package agent

import (
	"context"
	"log/slog"

	"weft/internal/kernel"
	"weft/internal/netstate"
)

// passes bounds how often a state is applied: a link that was just made brings parameters to life that could not be read before.
const passes = 2

// converge brings a network namespace to the wanted state and reads back: it returns the ops it applied, and an error that
// names what could not be done or still differs.
func converge(ctx context.Context, n *kernel.Netns, want netstate.State) ([]netstate.Op, error) {
	want = want.Select(func(o netstate.Object) bool { return kernel.Applies(o.Kind()) })
	var done []netstate.Op
	for range passes {
		ops, err := difference(ctx, n, want)
		if err != nil || len(ops) == 0 {
			return done, err
		}
		done = append(done, ops...)
		if err := n.Apply(ctx, ops); err != nil {
			return done, err
		}
	}
	left, err := difference(ctx, n, want)
	if err == nil && len(left) > 0 {
		e := &undoneError{what: "objects", first: left[0].String()}
		for _, op := range left {
			e.objects = append(e.objects, op.Object.String())
		}
		err = e
	}
	return done, err
}

func difference(ctx context.Context, n *kernel.Netns, want netstate.State) ([]netstate.Op, error) {
	have, err := n.Read(ctx, want)
	if err != nil {
		return nil, err
	}
	return netstate.Diff(want, have), nil
}

// convergePod does the same inside a pod's network namespace.
func convergePod(ctx context.Context, path string, want netstate.State) ([]netstate.Op, error) {
	n, err := kernel.Open(path)
	if err != nil {
		return nil, err
	}
	defer n.Close()
	return converge(ctx, n, want)
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
