package agent

import (
	"slices"
	"strings"
	"time"

	"weft/internal/api"
)

// Leaving reports whether the Kubernetes API says that the node is on its way out.
func (a *agent) Leaving() bool {
	snap, known := a.cluster()
	if !known {
		return false
	}
	i, found := slices.BinarySearchFunc(snap.Nodes, a.cfg.NodeName, func(n api.Node, name string) int { return strings.Compare(n.Name, name) })
	return found && snap.Nodes[i].Leaving
}

// Updated is when the services' rules were last as planned, and whether they are, or were not long ago.
func (a *agent) Updated() (at time.Time, healthy bool) { return a.proxy.Updated() }
