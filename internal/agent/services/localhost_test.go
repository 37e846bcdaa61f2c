package services

import (
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"syscall"
	"testing"

	"weft/internal/agent/agenttest"
	"weft/internal/agent/facts"
	"weft/internal/agent/loop"
	"weft/internal/api"
	kernelxt "weft/internal/kernel/xt"
	"weft/internal/netstate"
)

// busyRelay is one on whose host another program has some addresses.
type busyRelay struct {
	fakeRelay
	busy  map[netip.AddrPort]bool
	calls int
}

func (f *busyRelay) Apply(want []netstate.Listener) (map[string]uint16, error) {
	f.calls++
	var errs []error
	var open []netstate.Listener
	for _, l := range want {
		if f.busy[l.Addr] {
			errs = append(errs, fmt.Errorf("open listener for %s: %w", l.Key(), syscall.EADDRINUSE))
		} else {
			open = append(open, l)
		}
	}
	ports, _ := f.fakeRelay.Apply(open)
	return ports, errors.Join(errs...)
}

// TestNodePortsOnLoopback follows the relay's listeners: they change with their service, cost nothing when others change, and one that can't be
// opened is named and keeps nothing else from being served.
func TestNodePortsOnLoopback(t *testing.T) {
	for _, mode := range []facts.ProxyMode{facts.NFTables, facts.IPTables} {
		s, other := agenttest.Nginx("172.16.78.9:80"), agenttest.Services(1, 1)[0]
		s.NodePort = 30080
		p := newProxyLoop(mode, &kernelxt.Fake{}, &fakeTable{}, other, s)
		relay := &busyRelay{}
		p.relay = relay
		next := func(services ...api.ServicePort) {
			t.Helper()
			p.cluster = func() (api.Snapshot, bool) { return api.Snapshot{Services: services}, true }
			if _, err := p.Step(t.Context(), loop.ByPlan); err != nil {
				t.Fatal(err)
			}
		}
		want := map[string]uint16{"default/my-nginx-service:/localhost TCP": 30080}
		step(t, p)
		if !reflect.DeepEqual(relay.ports, want) {
			t.Errorf("mode %s: %v, want %v", mode, relay.ports, want)
		}
		calls := relay.calls
		next(agenttest.Changed([]api.ServicePort{other}, 0)[0], s)
		if mode == facts.NFTables && relay.calls != calls {
			t.Error("the relay was asked though no service with a NodePort changed")
		}
		if r := p.State(); len(r.Listeners) != 1 {
			t.Errorf("mode %s: state has %v", mode, r.Listeners)
		}
		moved := s
		moved.NodePort = 30081
		relay.busy = map[netip.AddrPort]bool{netip.MustParseAddrPort("127.0.0.1:30081"): true}
		next(other, moved)
		if len(relay.ports) != 0 || len(p.localhost.warnings()) != 1 || p.steps.LastError != "" {
			t.Errorf("mode %s: a taken port: %v, %v, %q", mode, relay.ports, p.localhost.warnings(), p.steps.LastError)
		}
		relay.busy = nil
		step(t, p) // the full check tries again
		if len(relay.ports) != 1 || len(p.localhost.warnings()) != 0 {
			t.Errorf("mode %s: the port is free again: %v, %v", mode, relay.ports, p.localhost.warnings())
		}
		moved.NodePort = 0
		next(other, moved)
		if len(relay.ports) != 0 {
			t.Errorf("mode %s: no NodePort any longer: %v", mode, relay.ports)
		}
	}
}
