package network

import (
	"context"
	"log/slog"
	"net/netip"
	"os/exec"
	"strings"
	"testing"

	"weft/internal/agent/tunnels"
	"weft/internal/api"
	"weft/internal/kernel"
	"weft/internal/kernel/netns"
	"weft/internal/netstate"
	"weft/internal/overlay"
	"weft/internal/overlay/wireguard"
)

// wgAt is what a host with one peer wants of wireguard at a port, and for IPv6 at the next one.
func wgAt(port uint16, standIn bool) netstate.State {
	const own, peer = "hRhLNbAzKmL8dVd5Kj7GQLBf6BsTO2zi2V0cBvBl7R8=", "iMxCNbAzKmL8dVd5Kj7GQLBf6BsTO2zi2V0cBvB6dQI="
	self := overlay.Self{
		Lease:   api.Lease{WGKey: own, Subnet: netip.MustParsePrefix("10.5.1.0/24"), SubnetV6: netip.MustParsePrefix("fd00:5:0:1::/64")},
		Network: netip.MustParsePrefix("10.5.0.0/16"), NetworkV6: netip.MustParsePrefix("fd00:5::/48"), Dev: "lo", MTU: 1500,
		Options: overlay.Options{ListenPort: port, ListenPortV6: port + 1, StandIn: standIn, StandInV6: standIn, Userspace: true},
	}
	return wireguard.Backend{}.Plan(self, []api.Lease{{
		BackendType: "wireguard", WGKey: peer, WGPort: port, WGPortV6: port + 1,
		Subnet: netip.MustParsePrefix("10.5.2.0/24"), PublicIP: netip.MustParseAddr("192.0.2.2"),
		SubnetV6: netip.MustParsePrefix("fd00:5:0:2::/64"), PublicIPv6: netip.MustParseAddr("2001:db8::2"),
	}})
}

// wgHost is a host that has what a loop makes of wireguard.
type wgHost struct {
	t  *testing.T
	ns *netns.NS
	d  *Loop
}

func newWGHost(t *testing.T) wgHost {
	t.Helper()
	netns.Need(t)
	ns, err := netns.New("")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ns.Close() })
	h, err := kernel.Open(ns.Path())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.Close() })
	d := &Loop{log: slog.New(slog.DiscardHandler), handle: h, tunnels: tunnels.New(slog.New(slog.DiscardHandler), t.TempDir())}
	t.Cleanup(func() { _ = d.tunnels.Close() })
	return wgHost{t, ns, d}
}

func (h wgHost) do(f func() error) {
	h.t.Helper()
	if err := h.ns.Do(f); err != nil {
		h.t.Fatal(err)
	}
}

// step is what a step of the loop does, and checks that each device listens where it is to.
func (h wgHost) step(ports map[string]uint16, states ...netstate.State) {
	h.t.Helper()
	want := netstate.Union(states...)
	h.do(func() error {
		h.d.settle(context.Background(), want)
		if err := h.d.tunnels.Prepare(want, ""); err != nil {
			return err
		}
		if _, err := converge(context.Background(), h.d.handle, want, nil); err != nil {
			return err
		}
		return h.d.tunnels.Apply(want)
	})
	for _, dev := range wireguard.Devices() {
		want := ports[dev]
		if v4, v6 := strings.CutSuffix(dev, "-v6"); v6 && ports[v4] != 0 {
			want = ports[v4] + 1
		}
		h.do(func() error {
			if got := h.d.tunnels.WireGuard().Port(dev); got != want {
				h.t.Errorf("%s listens at %d, want %d", dev, got, want)
			}
			return nil
		})
	}
}

// index is the interface index of a link, by which the same one is known under another name.
func (h wgHost) index(dev string) string {
	h.t.Helper()
	var text string
	h.do(func() error {
		out, err := exec.CommandContext(h.t.Context(), "ip", "-o", "link", "show", "dev", dev).Output()
		text, _, _ = strings.Cut(string(out), ":")
		return err
	})
	return text
}

// TestWireGuardDevicesTakeTheirNames: devices are the same ones, with their sockets and keys, under the names the plan has for their ports; where
// the kernel does not rename them, they are made anew.
func TestWireGuardDevicesTakeTheirNames(t *testing.T) {
	h := newWGHost(t)
	const p, q, r = 41820, 47000, 47002
	const device, standIn = wireguard.Device, wireguard.StandIn
	h.step(map[string]uint16{device: p}, wgAt(p, false))
	h.step(map[string]uint16{device: p, standIn: q}, wgAt(p, false), wgAt(q, true)) // prepared, then in force
	first, second := h.index(device), h.index(standIn)
	first6 := h.index(wireguard.DeviceV6)
	h.step(map[string]uint16{device: q, standIn: p}, wgAt(q, false), wgAt(p, true)) // going back is prepared
	if h.index(device) != second || h.index(standIn) != first || h.index(wireguard.StandInV6) != first6 {
		t.Error("the devices did not change places")
	}
	h.step(map[string]uint16{device: p}, wgAt(p, false))
	if h.index(device) != first {
		t.Error("the device that stood in was not taken")
	}
	h.step(map[string]uint16{device: r, standIn: p}, wgAt(r, false), wgAt(p, true)) // half of it was missed
	if h.index(standIn) != first {
		t.Error("the device is not the one that stands in now")
	}
	h.do(func() error { // a foreign device has the name that both would need
		return exec.CommandContext(t.Context(), "ip", "link", "add", "weft-wg-x", "type", "bridge").Run()
	})
	h.step(map[string]uint16{device: p, standIn: r}, wgAt(p, false), wgAt(r, true))
	h.index("weft-wg-x") // is left alone
}
