package agent

import (
	"testing"

	"weft/internal/agent/facts"
	"weft/internal/api"
)

// TestRenewed: a node that was deleted and made anew is written to again, once; one that was not written to yet is not new.
func TestRenewed(t *testing.T) {
	bare := api.Node{Name: "n1"}
	told := api.Node{Name: "n1", Annotations: map[string]string{facts.Annotation: "{}"}}
	other := api.Node{Name: "n2"}
	lacked := true
	for i, x := range []struct {
		nodes []api.Node
		want  bool
	}{
		{[]api.Node{other}, false},
		{[]api.Node{bare, other}, false},
		{[]api.Node{told}, false},
		{[]api.Node{told, other}, false},
		{[]api.Node{other}, false},
		{[]api.Node{bare}, true},
		{[]api.Node{bare}, false},
		{[]api.Node{told}, false},
		{[]api.Node{bare}, true},
	} {
		if got := renewedNode(api.Snapshot{Nodes: x.nodes}, "n1", &lacked); got != x.want {
			t.Errorf("%d: %v", i, got)
		}
	}
}
