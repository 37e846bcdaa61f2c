package kube

import (
	"fmt"
	"io"
)

// changes counts the changes of one kind of objects: all, and those that the Feed does not know yet.
type changes struct{ total, pending int }

func (c *changes) note() {
	c.total++
	c.pending++
}

// WriteMetrics prints how much changed, under the names that kube-proxy gave to the same, in the Prometheus text format; a nil Watch nothing.
func (w *Watch) WriteMetrics(to io.Writer) {
	if w == nil {
		return
	}
	w.mu.Lock()
	services, slices := w.serviceChanges, w.sliceChanges
	w.mu.Unlock()
	for _, x := range []struct {
		kind, what string
		changes
	}{{"service", "services", services}, {"endpoint", "EndpointSlices", slices}} {
		name := "kubeproxy_sync_proxy_rules_" + x.kind + "_changes_"
		fmt.Fprintf(to, "# HELP %stotal changes of %s that matter to their rules\n# TYPE %stotal counter\n%stotal %d\n", name, x.what, name, name, x.total)
		fmt.Fprintf(to, "# HELP %spending those that are not in the plan yet\n# TYPE %spending gauge\n%spending %d\n", name, name, name, x.pending)
	}
}
