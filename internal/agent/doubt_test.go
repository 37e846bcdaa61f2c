package agent

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"weft/internal/agent/leases"
	"weft/internal/api"
	"weft/internal/runtime"
)

// TestDoubt: a node that is not sure of its lease gives out no addresses, and says why.
func TestDoubt(t *testing.T) {
	believes := false
	a := &agent{leaseReport: func(time.Time) (leases.Status, bool) {
		return leases.Status{Phase: "lost", Problem: "lease 172.16.28.0-24 belongs to 172.17.42.40 now"}, believes
	}}
	d := &dataplane{leases: leaseList{{Subnet: netip.MustParsePrefix("172.16.28.0/24")}}, mayAttach: a.mayAttach}
	_, err := d.Attach(t.Context(), runtime.SandboxStatus{})
	if err == nil || !strings.Contains(err.Error(), "the node's lease is in doubt (lost): lease 172.16.28.0-24 belongs to 172.17.42.40 now") {
		t.Errorf("got %v", err)
	}
	believes = true
	if err := a.mayAttach(); err != nil {
		t.Errorf("got %v", err)
	}
}

type leaseList []api.Lease

func (l leaseList) Own() (api.Lease, bool) { return l[0], true }

func (l leaseList) Leases() []api.Lease { return l }

func (l leaseList) Changed() <-chan struct{} { return nil }
