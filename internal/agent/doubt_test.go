package agent

import (
	"strings"
	"testing"
	"time"

	"weft/internal/agent/leases"
)

// TestDoubt: a node that is not sure of its lease gives out no addresses, and says why.
func TestDoubt(t *testing.T) {
	believes := false
	a := &agent{leaseReport: func(time.Time) (leases.Status, bool) {
		return leases.Status{Phase: "lost", Problem: "lease 172.16.28.0-24 belongs to 172.17.42.40 now"}, believes
	}}
	err := a.mayAttach()
	if err == nil || !strings.Contains(err.Error(), "the node's lease is in doubt (lost): lease 172.16.28.0-24 belongs to 172.17.42.40 now") {
		t.Errorf("got %v", err)
	}
	believes = true
	if err := a.mayAttach(); err != nil {
		t.Errorf("got %v", err)
	}
}
