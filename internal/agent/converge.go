package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"weft/internal/kernel/netns"
	"weft/internal/kernel/rtnl"
	"weft/internal/kernel/sysctl"
	"weft/internal/netstate"
)

// converge brings the calling thread's network namespace to the wanted state and reads back: it returns the ops it applied, and an
// error that names what still differs. Links come before sysctls, as some of those are per link.
func converge(ctx context.Context, h *rtnl.Handle, want netstate.State) ([]netstate.Op, error) {
	ops, err := difference(ctx, h, want)
	if err != nil || len(ops) == 0 {
		return nil, err
	}
	var links, params []netstate.Op
	for _, op := range ops {
		if op.Object.Kind() == netstate.KindSysctl {
			params = append(params, op)
		} else {
			links = append(links, op)
		}
	}
	err = errors.Join(h.Apply(ctx, links), sysctl.Apply(params))
	if err != nil {
		return ops, err
	}
	left, err := difference(ctx, h, want)
	if err == nil && len(left) > 0 {
		// A link that was just made may have brought parameters to life that could not be read before.
		if err = errors.Join(h.Apply(ctx, onlyRoutes(left)), sysctl.Apply(onlySysctls(left))); err == nil {
			left, err = difference(ctx, h, want)
		}
	}
	if err == nil && len(left) > 0 {
		err = fmt.Errorf("read back: %d objects are not as planned, the first: %s", len(left), left[0])
	}
	return ops, err
}

func onlySysctls(ops []netstate.Op) []netstate.Op { return selectOps(ops, true) }

func onlyRoutes(ops []netstate.Op) []netstate.Op { return selectOps(ops, false) }

func selectOps(ops []netstate.Op, sysctls bool) []netstate.Op {
	var out []netstate.Op
	for _, op := range ops {
		if (op.Object.Kind() == netstate.KindSysctl) == sysctls {
			out = append(out, op)
		}
	}
	return out
}

// difference is what is left to do, in the kinds that rtnetlink and sysctl hold.
func difference(ctx context.Context, h *rtnl.Handle, want netstate.State) ([]netstate.Op, error) {
	want = want.Select(func(o netstate.Object) bool { return o.Kind() == netstate.KindSysctl || rtnl.Applies(o.Kind()) })
	have, err := h.Read(ctx, want)
	if err != nil {
		return nil, err
	}
	params, err := sysctl.Read(want)
	if err != nil {
		return nil, err
	}
	return netstate.Diff(want, netstate.Union(have, params)), nil
}

// convergePod does the same inside a pod's network namespace.
func convergePod(ctx context.Context, path string, want netstate.State) (ops []netstate.Op, err error) {
	err = netns.Do(path, func() error {
		h, err := rtnl.Open()
		if err != nil {
			return err
		}
		defer h.Close()
		ops, err = converge(ctx, h, want)
		return err
	})
	return ops, err
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
