package agent

import (
	"os/exec"
	"strings"
	"testing"

	"weft/internal/agent/agenttest"
	"weft/internal/agent/facts"
	"weft/internal/agent/settings"
	"weft/internal/attach"
	"weft/internal/kernel/netns"
)

// TestMeetBridge: a bridge that is there keeps its address in every plan; what is no bridge is not asked for one.
func TestMeetBridge(t *testing.T) {
	netns.Need(t)
	for _, x := range []struct{ make, want string }{
		{"", ""},
		{"ip link add cni-meet address b6:0e:60:e5:2d:c3 type bridge", "b6:0e:60:e5:2d:c3"},
		{"ip link add cni-meet address b6:0e:60:e5:2d:c3 type veth peer name hub-meet", ""},
	} {
		if args := strings.Fields(x.make); len(args) > 0 {
			if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
				t.Fatalf("%s: %s", x.make, out)
			}
		}
		a := &agent{cfg: settings.Config{Bridge: "cni-meet"}}
		err := a.meetBridge(t.Context())
		_ = exec.Command("ip", "link", "del", "cni-meet").Run()
		if err != nil || a.bridgeMAC != x.want {
			t.Errorf("%q: %q, %v, want %q", x.make, a.bridgeMAC, err, x.want)
		}
		f := facts.Facts{Attach: attach.Bridge, Bridge: "cni-meet", BridgeMAC: a.bridgeMAC}
		if got := f.AttachConfig(agenttest.Lease("a", "10.1.1.0/24", "172.17.42.31", "vxlan", 1, "02:00:00:00:00:01"), 1450).BridgeMAC; got != x.want {
			t.Errorf("%q: the plan has %q", x.make, got)
		}
	}
}
