package rtnl_test

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"

	"weft/internal/kernel/netns"
	"weft/internal/kernel/rtnl"
	"weft/internal/kernel/sysctl"
	"weft/internal/netstate"
)

func TestMain(m *testing.M) { os.Exit(netns.Main(m)) }

// world is a namespace with an agent's view of the kernel.
type world struct {
	t  testing.TB
	ns *netns.NS
	h  *rtnl.Handle
}

// newWorld makes a namespace of its own for the test.
func newWorld(t testing.TB) *world {
	t.Helper()
	netns.Need(t)
	ns, err := netns.New("")
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, ns: ns}
	w.restart()
	t.Cleanup(func() {
		w.h.Close()
		ns.Close()
	})
	return w
}

// restart opens a new handle, as a new agent does.
func (w *world) restart() {
	w.t.Helper()
	if w.h != nil {
		w.h.Close()
	}
	w.must(w.ns.Do(func() (err error) {
		w.h, err = rtnl.Open()
		return err
	}))
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// read returns what there is of the wanted state.
func (w *world) read(want netstate.State) netstate.State {
	w.t.Helper()
	have, err := w.h.Read(context.Background(), want)
	w.must(err)
	w.must(w.ns.Do(func() error {
		s, err := sysctl.Read(want)
		have = netstate.Union(have, s)
		return err
	}))
	return have
}

// apply does the ops, each kind by its applier, in order.
func (w *world) apply(ops []netstate.Op) error {
	w.t.Helper()
	for len(ops) > 0 {
		n, ours := 1, rtnl.Applies(ops[0].Object.Kind())
		for n < len(ops) && rtnl.Applies(ops[n].Object.Kind()) == ours {
			n++
		}
		var err error
		if ours {
			err = w.h.Apply(context.Background(), ops[:n])
		} else {
			err = w.ns.Do(func() error { return sysctl.Apply(ops[:n]) })
		}
		if err != nil {
			return err
		}
		ops = ops[n:]
	}
	return nil
}

// converge applies what is missing and returns the number of ops.
func (w *world) converge(want netstate.State) int {
	w.t.Helper()
	ops := netstate.Diff(want, w.read(want))
	w.must(w.apply(ops))
	return len(ops)
}

// settled fails the test unless the kernel holds exactly what is wanted.
func (w *world) settled(want netstate.State) {
	w.t.Helper()
	have := w.read(want)
	for _, op := range netstate.Diff(want, have) {
		w.t.Errorf("left to do: %s", op)
		if o, ok := have.Get(netstate.IDOf(op.Object)); ok {
			w.t.Logf("found: %s", o)
		}
	}
	if !w.t.Failed() && !netstate.Equal(want, have) {
		w.t.Errorf("have\n%s\nwant\n%s", have, want)
	}
}

// underlay joins the worlds with veth pairs named eth0 to a bridge in a namespace of its own and gives them addresses.
func underlay(t testing.TB, addrs ...netip.Prefix) []*world {
	t.Helper()
	hub := newWorld(t)
	want := netstate.New(netstate.Link{Name: "wire", Type: netstate.TypeBridge, MTU: 1500, Alias: "weft:test", Up: true})
	var worlds []*world
	for i, a := range addrs {
		w := newWorld(t)
		worlds = append(worlds, w)
		want.Add(netstate.Link{
			Name: "port" + string(rune('a'+i)), Type: netstate.TypeVeth, MTU: 1500, Master: "wire", Alias: "weft:test", Up: true,
			Peer: netstate.Peer{Name: "eth0", Netns: w.ns.Path()},
		})
		defer func() {
			eth0 := netstate.New(netstate.Link{Name: "eth0", Type: netstate.TypeVeth, MTU: 1500, Up: true}, netstate.Addr{Dev: "eth0", Prefix: a})
			w.converge(eth0)
			w.settled(eth0)
		}()
	}
	hub.converge(want)
	hub.settled(want)
	return worlds
}

// run runs a command line in the namespace, without a shell.
func (w *world) run(line string) error {
	w.t.Helper()
	args := strings.Fields(line)
	return w.ns.Do(func() error {
		out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
		if err != nil {
			return fmt.Errorf("%s: %w: %s", line, err, out)
		}
		return nil
	})
}

// ip runs the command lines of ip(8), bridge(8) and sysctl(8) one by one.
func (w *world) ip(lines ...string) {
	w.t.Helper()
	for _, line := range lines {
		w.must(w.run(line))
	}
}
