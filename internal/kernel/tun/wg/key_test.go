package wg

import (
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"weft/internal/netstate"
)

func TestLoadKey(t *testing.T) {
	dir := t.TempDir()
	file, other := filepath.Join(dir, "key"), filepath.Join(dir, "flannel")
	first, err := LoadKey(file, other)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := LoadKey(file, other); err != nil || again != first {
		t.Errorf("second time: %v, another key: %v", err, again != first)
	}
	if st, err := os.Stat(file); err != nil || st.Mode().Perm() != 0o400 {
		t.Errorf("mode %v, %v: want 0400", st.Mode(), err)
	}
	if err := os.Chmod(file, 0o644); err != nil {
		t.Fatal(err)
	}
	_, err = LoadKey(file, other)
	if st, serr := os.Stat(file); err != nil || serr != nil || st.Mode().Perm() != 0o400 {
		t.Errorf("open to others: %v, then mode %v", err, st.Mode())
	}
	if err := os.Rename(file, other); err != nil {
		t.Fatal(err)
	}
	if taken, err := LoadKey(file, other); err != nil || taken != first {
		t.Errorf("flannel's key was not taken over: %v", err)
	}
	if left, err := filepath.Glob(filepath.Join(dir, ".key-*")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte("hello\n"), 0o400); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadKey(file, other); err == nil || !strings.Contains(err.Error(), file) || strings.Contains(err.Error(), "hello") {
		t.Errorf("broken file: error %v, want it to name the file and not its contents", err)
	}
}

// fake is a kernel driver: it keeps what it is told as the kernel does.
type fake struct {
	dev   wgtypes.Device
	calls int
}

func (f *fake) Device(string) (*wgtypes.Device, error) { d := f.dev; return &d, nil }

func (f *fake) ConfigureDevice(_ string, c wgtypes.Config) error {
	f.calls++
	if c.PrivateKey != nil {
		f.dev.PrivateKey = *c.PrivateKey
	}
	if c.ListenPort != nil {
		f.dev.ListenPort = *c.ListenPort
	}
	for _, p := range c.Peers {
		if i := slices.IndexFunc(f.dev.Peers, func(q wgtypes.Peer) bool { return q.PublicKey == p.PublicKey }); i >= 0 && !p.ReplaceAllowedIPs {
			p.AllowedIPs = append(f.dev.Peers[i].AllowedIPs, p.AllowedIPs...) // WGPEER_F_REPLACE_ALLOWEDIPS of linux/wireguard.h
		}
		f.dev.Peers = slices.DeleteFunc(f.dev.Peers, func(q wgtypes.Peer) bool { return q.PublicKey == p.PublicKey })
		if !p.Remove {
			f.dev.Peers = append(f.dev.Peers, wgtypes.Peer{
				PublicKey: p.PublicKey, PresharedKey: *p.PresharedKey, Endpoint: p.Endpoint, AllowedIPs: p.AllowedIPs,
				PersistentKeepaliveInterval: *p.PersistentKeepaliveInterval,
			})
		}
	}
	return nil
}

// TestKernelDriver brings a kernel device to a plan, from nothing and from what others made of it.
func TestKernelDriver(t *testing.T) {
	key, psk, other := Key{1}, Key{2}, Key{3}
	e := New(Options{Devices: []string{"wg"}, Key: key, PSK: psk})
	tunnel := func(subnet, remote string) netstate.Tunnel {
		return netstate.Tunnel{
			Dev: "wg", Subnet: netip.MustParsePrefix(subnet), Local: netip.MustParseAddrPort("0.0.0.0:51820"),
			Remote: netip.MustParseAddrPort(remote), PeerKey: other.String(), Keepalive: 25,
		}
	}
	c, err := configOf(netstate.New(tunnel("10.1.2.0/24", "172.17.42.32:51820"), tunnel("fd10:0:0:2::/64", "172.17.42.32:51820")), "wg")
	if err != nil {
		t.Fatal(err)
	}
	f := &fake{}
	apply := func(want int, why string) {
		t.Helper()
		f.calls = 0
		if err := e.applyTo(f, "wg", c); err != nil {
			t.Fatal(err)
		}
		if f.calls != want {
			t.Errorf("%s: %d calls, want %d", why, f.calls, want)
		}
		p := f.dev.Peers
		if f.dev.PrivateKey != key || f.dev.ListenPort != 51820 || len(p) != 1 || p[0].PublicKey != other || p[0].PresharedKey != psk ||
			len(p[0].AllowedIPs) != 2 || p[0].PersistentKeepaliveInterval != 25*time.Second {
			t.Errorf("%s: device %+v", why, f.dev)
		}
	}
	apply(1, "from nothing")
	apply(0, "again")
	f.dev.Peers[0].AllowedIPs = append(f.dev.Peers[0].AllowedIPs, net.IPNet{IP: net.IP{0, 0, 0, 0}, Mask: net.CIDRMask(0, 32)})
	apply(1, "allowed IPs widened")
	f.dev.Peers[0].PresharedKey = Key{}
	apply(1, "preshared key gone")
	f.dev.PrivateKey = Key{9}
	apply(1, "private key changed")
	f.dev.Peers = append(f.dev.Peers, wgtypes.Peer{PublicKey: Key{7}})
	apply(1, "stranger added")
	if port := portOf(f, "wg"); port != 51820 {
		t.Errorf("port %d", port)
	}
}

func TestConfigErrors(t *testing.T) {
	good := netstate.Tunnel{
		Dev: "wg", Subnet: netip.MustParsePrefix("10.1.2.0/24"), Remote: netip.MustParseAddrPort("172.17.42.32:51820"), PeerKey: Key{3}.String(),
	}
	bad := good
	bad.Subnet, bad.PeerKey = netip.MustParsePrefix("10.1.3.0/24"), "short"
	c, err := configOf(netstate.New(good, bad), "wg")
	if err == nil || !strings.Contains(err.Error(), "10.1.3.0/24") || len(c.peers) != 1 {
		t.Errorf("config %+v, error %v: want the good peer, and an error that names the bad one's subnet", c, err)
	}
}

// TestUnmet: peers without a handshake are counted, and those that this host is to begin with are made anew, not too often.
func TestUnmet(t *testing.T) {
	text := "private_key=aa\nlisten_port=51820\npublic_key=01\nlast_handshake_time_sec=0\nlast_handshake_time_nsec=0\n" +
		"public_key=02\nlast_handshake_time_sec=1700000000\nlast_handshake_time_nsec=5\n"
	if met := handshakes(text); met["01"] || !met["02"] {
		t.Errorf("handshakes: %v", met)
	}
	e := New(Options{Devices: []string{"wg"}, Key: Key{1}})
	f := &fake{}
	f.dev.Peers = []wgtypes.Peer{
		{PublicKey: Key{2}, PersistentKeepaliveInterval: 25 * time.Second},
		{PublicKey: Key{3}},
		{PublicKey: Key{4}, LastHandshakeTime: time.Unix(1, 0)},
	}
	for i, calls := range []int{1, 1} {
		n, err := e.unmetOf(f, "wg")
		if err != nil || n != 2 || f.calls != calls {
			t.Errorf("call %d: %d without handshake, %d changes, %v", i, n, f.calls, err)
		}
	}
}
