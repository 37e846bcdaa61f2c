package cleanup

import (
	"strings"
	"testing"

	"weft/internal/agent/agenttest"
	values "weft/internal/xt"
)

// TestServicesOps removes weft's rules of services and leaves what is about pods, and what is others'.
func TestServicesOps(t *testing.T) {
	tables, err := values.Parse(agenttest.KubeProxyRules)
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, op := range servicesOps(values.Ruleset{V4: tables}) {
		lines = append(lines, op.String())
	}
	text := strings.Join(lines, "\n")
	if !strings.Contains(text, "-X KUBE-PORTALS-CONTAINER") || !strings.Contains(text, "-D PREROUTING") || len(lines) > 3 ||
		strings.Contains(text, "WEFT-KEEP") || strings.Contains(text, "KUBE-SERVICES") {
		t.Errorf("got\n%s", text)
	}
}
