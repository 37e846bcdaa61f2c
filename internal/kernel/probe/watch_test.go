package probe_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"testing"
	"time"

	"weft/internal/kernel/netns"
	"weft/internal/kernel/probe"
)

func TestMain(m *testing.M) { os.Exit(netns.Main(m)) }

// TestUnderlayIsFollowed: each change of the underlay is heard of, and what is found afterwards is the new state.
func TestUnderlayIsFollowed(t *testing.T) {
	netns.Need(t)
	ctx, stop := context.WithCancel(t.Context())
	ch, err := probe.Watch(ctx, probe.Choice{})
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct {
		command []string
		ok      func(u probe.Underlay, err error) bool
	}{
		{[]string{"link", "add", "up0", "type", "veth", "peer", "name", "up1"}, func(_ probe.Underlay, err error) bool { return errors.Is(err, probe.ErrNoUnderlay) }},
		{[]string{"link", "set", "up0", "up"}, nil},
		{[]string{"addr", "add", "172.17.42.31/16", "dev", "up0"}, func(u probe.Underlay, err error) bool { return err == nil && u.Addr(false).String() == "172.17.42.31" }},
		{[]string{"link", "set", "up0", "mtu", "1400"}, func(u probe.Underlay, _ error) bool { return u.MTU == 1400 }},
		{[]string{"route", "add", "default", "via", "172.17.42.1"}, func(u probe.Underlay, _ error) bool { return u.Gateway.String() == "172.17.42.1" }},
		{[]string{"link", "del", "up0"}, func(_ probe.Underlay, err error) bool { return errors.Is(err, probe.ErrNoUnderlay) }},
	} {
		for len(ch) > 0 {
			<-ch
		}
		if out, err := exec.Command("ip", x.command...).CombinedOutput(); err != nil {
			t.Fatalf("ip %v: %v\n%s", x.command, err, out)
		}
		deadline := time.After(30 * time.Second)
		for {
			select {
			case <-ch:
			case <-deadline:
				t.Fatalf("ip %v: no event", x.command)
			}
			if u, err := probe.Find(probe.Choice{Names: []string{"up0"}}); x.ok == nil || x.ok(u, err) {
				break
			}
		}
	}
	stop()
	select {
	case <-ch: // a last event, or closed
	case <-time.After(30 * time.Second):
		t.Error("the watch does not end")
	}
}
