package attach_test

import (
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"weft/internal/attach"
	"weft/internal/netstate"
)

var update = flag.Bool("update", false, "write the golden files")

func config(mode attach.Mode, dual bool) attach.Config {
	c := attach.Config{Mode: mode, Subnet: netip.MustParsePrefix("172.16.28.0/24"), MTU: 1450, IPv6: true, BridgeNetfilter: true}
	if mode == attach.Bridge {
		c.Bridge = "docker0"
	}
	if dual {
		c.SubnetV6, c.MTU = netip.MustParsePrefix("fd10:0:0:1c::/64"), 1430
	}
	return c
}

func pods() []attach.Pod {
	return []attach.Pod{
		{
			UID: "0b6e5a0c-7d5c-4b9e-9a55-4a7f1c6f2f01", Namespace: "default", Name: "sshd-2", Netns: "/run/weft/netns/sshd-2",
			IPs: []netip.Addr{netip.MustParseAddr("172.16.28.5"), netip.MustParseAddr("fd10:0:0:1c::5")},
		},
		{UID: "outside", IPs: []netip.Addr{netip.MustParseAddr("192.0.2.5")}, Netns: "/run/weft/netns/x"},
	}
}

func text(host netstate.State, inPod map[string]netstate.State) string {
	var b strings.Builder
	write := func(s netstate.State) {
		for _, op := range netstate.Diff(s, netstate.New()) {
			for _, c := range op.Commands() {
				b.WriteString(c + "\n")
			}
		}
	}
	b.WriteString("-- host --\n")
	write(host)
	for uid, s := range inPod {
		b.WriteString("-- pod " + uid + " --\n")
		for _, o := range s.Objects() { // the link is made with the host's end
			b.WriteString(o.Kind().String() + " " + o.String() + "\n")
		}
	}
	return b.String()
}

func TestGoldens(t *testing.T) {
	for name, c := range map[string]attach.Config{
		"routed.txtar": config(attach.Routed, false), "routed-dual.txtar": config(attach.Routed, true),
		"bridge.txtar": config(attach.Bridge, false), "bridge-dual.txtar": config(attach.Bridge, true),
	} {
		got := text(attach.Plan(c, pods()))
		file := filepath.Join("testdata", name)
		if *update {
			if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(string(want), got); d != "" {
			t.Errorf("%s (-golden +plan):\n%s", name, d)
		}
	}
}

func TestWalkthroughAddresses(t *testing.T) {
	host, inPod := attach.Plan(config(attach.Bridge, false), pods())
	if got := netstate.Of[netstate.Addr](host); len(got) != 1 || got[0].String() != "172.16.28.1/24 dev docker0" {
		t.Errorf("bridge's addresses %v", got)
	}
	in := inPod[pods()[0].UID]
	if got := netstate.Of[netstate.Addr](in); len(got) != 1 || got[0].String() != "172.16.28.5/24 dev eth0" {
		t.Errorf("pod's addresses %v", got)
	}
	if got := netstate.Of[netstate.Link](in); len(got) != 1 || got[0].MAC != "02:42:ac:10:1c:05" || got[0].MTU != 1450 {
		t.Errorf("pod's link %v", got)
	}
	if len(inPod) != 1 {
		t.Errorf("%d pods planned, want only the one with an address in the subnet", len(inPod))
	}
}

func TestNames(t *testing.T) {
	seen := map[string]string{}
	for i := range 5000 {
		uid := strings.Repeat("x", i%7) + string(rune('a'+i%26)) + netip.AddrFrom4([4]byte{1, 2, byte(i >> 8), byte(i)}).String()
		name := attach.HostInterface(uid)
		if len(name) > 15 || name != attach.HostInterface(uid) {
			t.Fatalf("name %q of %q", name, uid)
		}
		if other, ok := seen[name]; ok && other != uid {
			t.Fatalf("%q and %q are both %s", uid, other, name)
		}
		seen[name] = uid
	}
	for _, ip := range []string{"172.16.28.5", "fd10::5"} {
		if mac := attach.MAC(netip.MustParseAddr(ip)); !netstate.HostMAC(mac) {
			t.Errorf("MAC %s of %s", mac, ip)
		}
	}
	long := pods()[:1]
	long[0].Name = strings.Repeat("n", 253)
	host, _ := attach.Plan(config(attach.Routed, false), long)
	if a := netstate.Of[netstate.Link](host)[0].Alias; len(a) > 255 {
		t.Errorf("alias of %d bytes", len(a))
	}
}

// TestBridgeMAC: a bridge that others made keeps its address, which their pods have as that of their gateway.
func TestBridgeMAC(t *testing.T) {
	for _, mac := range []string{"", "b6:0e:60:e5:2d:c3"} {
		c := config(attach.Bridge, true)
		c.BridgeMAC = mac
		host, _ := attach.Plan(c, nil)
		o, ok := host.Get(netstate.ID{Kind: netstate.KindLink, Key: "docker0"})
		want := mac
		if want == "" {
			want = "02:42:ac:10:1c:01"
		}
		if l, is := o.(netstate.Link); !ok || !is || l.MAC != want {
			t.Errorf("with %q: %v, want the address %s", mac, o, want)
		}
	}
}
