// Package kernel reads, applies and watches the kernel objects of one network namespace: links, addresses, neighbours, FDB
// entries and routes through kernel/rtnl, parameters through kernel/sysctl.
//
// Floor 3, edges.
package kernel

import (
	"context"
	"errors"
	"fmt"

	"weft/internal/kernel/netns"
	"weft/internal/kernel/rtnl"
	"weft/internal/kernel/sysctl"
	"weft/internal/netstate"
)

// Netns is a network namespace as a State. Its methods may be called concurrently.
type Netns struct {
	path string
	rt   *rtnl.Handle
}

// Open opens the network namespace at path (ip-netns(8) names are below /run/netns), "" for the process's own. Another than the own one is
// taken for a pod's, whose processes are not trusted (rtnl.OpenUntrusted).
func Open(path string) (*Netns, error) {
	n := &Netns{path: path}
	open := rtnl.Open
	if path != "" {
		open = rtnl.OpenUntrusted
	}
	err := n.do(func() (err error) {
		n.rt, err = open()
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open kernel: %w", err)
	}
	return n, nil
}

// Close lets go of the namespace.
func (n *Netns) Close() error { return n.rt.Close() }

// do runs f in the namespace.
func (n *Netns) do(f func() error) error {
	if n.path == "" {
		return f()
	}
	return netns.Do(n.path, f)
}

// Applies reports whether Apply deals with objects of the kind; the others are for user-space engines.
func Applies(k netstate.Kind) bool { return k == netstate.KindSysctl || rtnl.Applies(k) }

// Read returns what there is of ours and what stands in the place of wanted objects (rtnl.Handle.Read), and the wanted parameters as
// they are.
func (n *Netns) Read(ctx context.Context, want netstate.State) (netstate.State, error) {
	have, err := n.rt.Read(ctx, want)
	if err != nil {
		return netstate.State{}, err
	}
	var parameters netstate.State
	err = n.do(func() (err error) {
		parameters, err = sysctl.Read(want)
		return err
	})
	if err != nil {
		return netstate.State{}, err
	}
	for _, p := range parameters.All() {
		have.Add(p)
	}
	return have, nil
}

// Apply does the ops in order. One that fails does not stop the others; the error names each that failed.
func (n *Netns) Apply(ctx context.Context, ops []netstate.Op) error {
	var errs []error
	for len(ops) > 0 {
		run := sameApplier(ops)
		if ops[0].Object.Kind() == netstate.KindSysctl {
			errs = append(errs, n.do(func() error { return sysctl.Apply(ops[:run]) }))
		} else {
			errs = append(errs, n.rt.Apply(ctx, ops[:run]))
		}
		ops = ops[run:]
	}
	return errors.Join(errs...)
}

// sameApplier is the number of leading ops that the same applier does.
func sameApplier(ops []netstate.Op) int {
	first := ops[0].Object.Kind() == netstate.KindSysctl
	for i, op := range ops {
		if (op.Object.Kind() == netstate.KindSysctl) != first {
			return i
		}
	}
	return len(ops)
}

// Watch returns a channel that receives, coalesced, when something of ours was changed by others (rtnl.Handle.Watch). Parameters cause no
// events: they are looked at with the next Read.
func (n *Netns) Watch(ctx context.Context) (<-chan struct{}, error) {
	var ch <-chan struct{}
	err := n.do(func() (err error) {
		ch, err = n.rt.Watch(ctx)
		return err
	})
	return ch, err
}

// Injuries returns what others changed since the last Read or Injuries and the ops that repair just that (rtnl.Handle.Injuries).
func (n *Netns) Injuries(also ...netstate.ID) (list []rtnl.Injury, ops []netstate.Op, whole bool) {
	return n.rt.Injuries(also...)
}

// Follow takes over that what is wanted changed by the ops, which were applied, as if the last Read had been for it.
func (n *Netns) Follow(ops []netstate.Op) { n.rt.Follow(ops) }

// Wants reports whether the last Read, or an op that was followed since, wanted an object in the place (rtnl.Handle.Wants).
func (n *Netns) Wants(id netstate.ID) bool { return n.rt.Wants(id) }

// DropNexthops deletes our next hop objects (rtnl.Handle.DropNexthops).
func (n *Netns) DropNexthops(ctx context.Context) (int, error) { return n.rt.DropNexthops(ctx) }

// Link returns the link with the name, whoever made it, for what an existing device decides: its MAC, its MTU. ok is false when there
// is none.
func (n *Netns) Link(ctx context.Context, name string) (l netstate.Link, ok bool, err error) {
	return n.rt.Link(ctx, name)
}

// Rename gives a link of ours another name (rtnl.Handle.Rename).
func (n *Netns) Rename(ctx context.Context, from, to string) error { return n.rt.Rename(ctx, from, to) }
