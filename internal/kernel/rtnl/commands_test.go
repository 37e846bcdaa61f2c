package rtnl_test

import (
	"fmt"
	"net/netip"
	"os/exec"
	"strings"
	"testing"

	"weft/internal/netstate"
)

// batch gives the commands of the ops to "ip -batch" and "bridge -batch" in the namespace; sysctl has no batch.
func (w *world) batch(ops []netstate.Op) error {
	var tool string
	var lines []string
	flush := func() error {
		if len(lines) == 0 {
			return nil
		}
		err := w.ns.Do(func() error {
			cmd := exec.Command(tool, "-batch", "-")
			cmd.Stdin = strings.NewReader(strings.Join(lines, "\n") + "\n")
			if out, err := cmd.CombinedOutput(); err != nil {
				return fmt.Errorf("%s -batch: %w: %s\n%s", tool, err, out, strings.Join(lines, "\n"))
			}
			return nil
		})
		lines = nil
		return err
	}
	for _, op := range ops {
		for _, line := range op.Commands() {
			name, args, _ := strings.Cut(line, " ")
			if name != tool {
				if err := flush(); err != nil {
					return err
				}
				tool = name
			}
			if name != "sysctl" {
				lines = append(lines, args)
				continue
			}
			if err := w.run(strings.Replace(line, "sysctl", "sysctl -q", 1)); err != nil {
				return err
			}
		}
	}
	return flush()
}

// TestCommands makes the states by the commands that ops print as and expects to read what was planned, changes it back and forth by
// commands, and takes it down.
func TestCommands(t *testing.T) {
	for i := range 7 {
		w, pod := node(t)
		s := stories(pod)[i]
		t.Run(s.name, func(t *testing.T) {
			w.t, pod.t = t, t
			w.must(w.batch(netstate.Diff(s.want, w.read(s.want))))
			pod.must(pod.batch(netstate.Diff(s.pod, pod.read(s.pod))))
			w.settled(s.want)
			pod.settled(s.pod)
			altered := alter(s.want)
			w.must(w.batch(netstate.Diff(altered, w.read(altered))))
			w.settled(altered)
			w.must(w.batch(netstate.Diff(s.want, w.read(s.want))))
			w.settled(s.want)
			w.must(w.batch(netstate.Diff(netstate.New(), w.read(netstate.New()))))
			w.settled(netstate.New())
		})
	}
}

// alter changes what can be changed in place.
func alter(s netstate.State) netstate.State {
	out := netstate.New()
	for _, o := range s.Objects() {
		switch o := o.(type) {
		case netstate.Link:
			o.MTU -= 10
			o.MAC = "02:11" + o.MAC[5:]
			o.Port.Hairpin = false
			out.Add(o)
		case netstate.Neigh:
			o.MAC = "02:11" + o.MAC[5:]
			out.Add(o)
		case netstate.FDB:
			o.Dst = o.Dst.Next()
			out.Add(o)
		case netstate.Route:
			o.MTU = 1300
			out.Add(o)
		case netstate.Addr:
			if o.Prefix.Addr().Is6() {
				o.Prefix = netip.PrefixFrom(o.Prefix.Addr(), 96)
			}
			out.Add(o)
		default:
			out.Add(o)
		}
	}
	return out
}
