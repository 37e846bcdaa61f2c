package agent

import (
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"weft/internal/agent/agenttest"
	"weft/internal/agent/settings"
	"weft/internal/agent/tunnels"
	"weft/internal/api"
	"weft/internal/kernel/netns"
	"weft/internal/overlay"
)

// TestRememberedElsewhere: after a reboot a host does not take what another lease has, a copied disk or its own earlier address; a device that
// is there keeps its address.
func TestRememberedElsewhere(t *testing.T) {
	netns.Need(t)
	const remembered = "02:00:00:00:00:09"
	other := agenttest.Lease("b", "10.1.2.0/24", "172.17.42.39", "vxlan", 1, remembered)
	for _, x := range []struct {
		name    string
		foreign []api.Lease
		device  bool
		same    bool
	}{
		{name: "nobody has it", same: true},
		{name: "another lease has it", foreign: []api.Lease{other}},
		{name: "a device has it", foreign: []api.Lease{other}, device: true, same: true},
	} {
		dir := t.TempDir()
		file := filepath.Join(dir, "flannel.1.mac")
		if err := os.WriteFile(file, []byte(remembered+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if x.device {
			ip(t, "link", "add", "flannel.1", "address", remembered, "type", "bridge")
		}
		a := &agent{log: slog.New(slog.DiscardHandler), cfg: settings.Config{StateDir: dir}, macs: map[string]string{}, foreign: x.foreign}
		mac, err := a.vtepMAC(t.Context(), "flannel.1")
		if x.device {
			ip(t, "link", "del", "flannel.1")
		}
		if text, _ := os.ReadFile(file); err != nil || (mac == remembered) != x.same || strings.TrimSpace(string(text)) != mac {
			t.Errorf("%s: %s, %v, the file has %s", x.name, mac, err, text)
		}
	}
}

// TestKeyElsewhere: the same of WireGuard's key, at the start only.
func TestKeyElsewhere(t *testing.T) {
	dir := t.TempDir()
	first, err := tunnels.AnnounceKey(api.Lease{}, overlay.Options{}, dir)
	if err != nil {
		t.Fatal(err)
	}
	other := agenttest.Lease("b", "10.1.2.0/24", "172.17.42.39", "wireguard", 0, "")
	other.WGKey = first.WGKey
	a := &agent{log: slog.New(slog.DiscardHandler), cfg: settings.Config{StateDir: dir}}
	if l, err := a.announceKey(api.Lease{}, overlay.Options{}); err != nil || l.WGKey != first.WGKey {
		t.Errorf("nobody has the key: %s, %v, want %s", l.WGKey, err, first.WGKey)
	}
	a.foreign = []api.Lease{other}
	next, err := a.announceKey(api.Lease{}, overlay.Options{})
	if err != nil || next.WGKey == first.WGKey || next.WGKey == "" {
		t.Errorf("another lease has the key: %s, %v", next.WGKey, err)
	}
	a.leases = &agenttest.Journal{Self: agenttest.Lease("a", "10.1.1.0/24", "172.17.42.31", "wireguard", 0, ""), Others: []api.Lease{other}}
	other.WGKey = next.WGKey
	if l, err := a.announceKey(api.Lease{}, overlay.Options{}); err != nil || l.WGKey != next.WGKey {
		t.Errorf("an agent that runs keeps its key: %s, %v, want %s", l.WGKey, err, next.WGKey)
	}
}

func ip(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), "ip", args...).CombinedOutput(); err != nil {
		t.Fatalf("ip %s: %s", strings.Join(args, " "), out)
	}
}
