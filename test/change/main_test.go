package change

import (
	"os"
	"testing"

	"weft/internal/lab"
	"weft/internal/lab/topology"
	"weft/test/labtest"
)

const (
	master = labtest.Master
	node1  = labtest.Node1
	node2  = labtest.Node2
	node3  = labtest.Node3
)

var hosts = []string{node1, node2, node3}

func TestMain(m *testing.M) {
	os.Exit(labtest.Main(m, map[string]labtest.Role{
		proberArg: func(to []string) error { return prober(os.Stdin, os.Stdout, to) },
	}, "weft-server", "kubectl"))
}

// cluster is a lab with programs.
type cluster struct{ *labtest.Cluster }

func up(t *testing.T, top topology.Topology) *cluster {
	t.Helper()
	return &cluster{labtest.Up(t, "change", top, lab.Options{})}
}
