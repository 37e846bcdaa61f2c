package agent

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"weft/internal/agent/attachments"
	"weft/internal/agent/facts"
	"weft/internal/agent/leases"
)

// leaseStatus puts together what the stores and the loops know.
func (a *agent) leaseStatus() *leases.Status {
	if a.leaseReport == nil {
		return nil
	}
	s, _ := a.leaseReport(time.Now())
	s.Refused = slices.Concat(s.Refused, a.pathless.Get())
	own, ok := a.leases.Own()
	if !ok {
		return &s
	}
	subnets := facts.Valid(own.Subnet, own.SubnetV6)
	for _, p := range a.pods.List() {
		if len(p.IPs) > 0 && !attachments.Within(p.IPs, subnets) {
			s.Stranded = append(s.Stranded, p.Namespace+"/"+p.Name)
		}
	}
	return &s
}

// mayAttach says why no new pod may get an address now: the subnet may be another host's. Pods that have one are forwarded all the same.
func (a *agent) mayAttach() error {
	if a.leaseReport == nil {
		return nil
	}
	s, believes := a.leaseReport(time.Now())
	if believes {
		return nil
	}
	return fmt.Errorf("no new addresses while the node's lease is in doubt (%s): %s", s.Phase,
		cmp.Or(s.Problem, "it has not been renewed for too long"))
}
