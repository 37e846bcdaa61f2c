package sysctl_test

import (
	"testing"
	"time"

	"weft/internal/kernel/netns"
	"weft/internal/kernel/sysctl"
	"weft/internal/netstate"
)

// TestWatch: forwarding and rp_filter cause events, and the channel is closed at the end.
func TestWatch(t *testing.T) {
	netns.Need(t)
	ch, err := sysctl.Watch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"net/ipv4/ip_forward", "net/ipv4/conf/lo/rp_filter"} {
		old, err := sysctl.Get(name)
		if err != nil {
			t.Fatal(err)
		}
		value := map[string]string{"0": "1"}[old]
		if value == "" {
			value = "0"
		}
		if err := sysctl.Apply([]netstate.Op{{Verb: netstate.Set, Object: netstate.Sysctl{Name: name, Value: value}}}); err != nil {
			t.Fatal(err)
		}
		select {
		case <-ch:
		case <-time.After(30 * time.Second):
			t.Errorf("no event for %s", name)
		}
	}
}
