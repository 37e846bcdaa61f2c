package rtnl_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"weft/internal/api"
	"weft/internal/attach"
	"weft/internal/kernel/netns"
	"weft/internal/kernel/rtnl"
	"weft/internal/netstate"
	"weft/internal/overlay"
	"weft/internal/overlay/hostgw"
	"weft/internal/overlay/vxlan"
)

// leases returns n leases of both families.
func leases(n int) []api.Lease {
	out := make([]api.Lease, 0, n)
	for i := range n {
		a, b := byte(i>>8), byte(i)
		out = append(out, api.Lease{
			Node:       fmt.Sprintf("node%d", i),
			Subnet:     netip.PrefixFrom(netip.AddrFrom4([4]byte{10, a, b, 0}), 24),
			SubnetV6:   netip.PrefixFrom(netip.AddrFrom16([16]byte{0xfd, 0x10, a, b}), 64),
			PublicIP:   netip.AddrFrom4([4]byte{172, 17, a, b}),
			PublicIPv6: netip.AddrFrom16([16]byte{0xfd, 0x17, 15: b, 14: a}),
			VNI:        1, BackendType: "vxlan",
			VTEPMAC: fmt.Sprintf("02:00:00:00:%02x:%02x", a, b), VTEPMACv6: fmt.Sprintf("02:00:00:06:%02x:%02x", a, b),
		})
	}
	return out
}

// self is node 200.1 of the network; dual asks for IPv6 too.
func self(dual bool) overlay.Self {
	s := overlay.Self{
		Lease: api.Lease{
			Subnet: netip.MustParsePrefix("10.200.0.0/24"), PublicIP: netip.MustParseAddr("172.17.200.1"), VTEPMAC: "02:00:00:00:ff:01",
			BackendType: "vxlan", VNI: 1,
		},
		Network: netip.MustParsePrefix("10.0.0.0/8"),
		Dev:     "eth0", MTU: 1500, Addr: netip.MustParseAddr("172.17.200.1"),
		Connected: []netip.Prefix{netip.MustParsePrefix("172.17.0.0/16"), netip.MustParsePrefix("fd17::/64")},
	}
	if dual {
		s.Lease.SubnetV6 = netip.MustParsePrefix("fd10:ffff::/64")
		s.Lease.VTEPMACv6 = "02:00:00:06:ff:01"
		s.Lease.PublicIPv6 = netip.MustParseAddr("fd17::200:1")
		s.AddrV6 = s.Lease.PublicIPv6
	}
	return s
}

// node is a world with the underlay of self and a pod's namespace.
func node(t *testing.T) (w *world, pod *world) {
	t.Helper()
	w = underlay(t, netip.MustParsePrefix("172.17.200.1/16"))[0]
	w.ip("ip addr add fd17::200:1/64 dev eth0 nodad")
	return w, newWorld(t)
}

// story is a wanted state and what is in the pod's namespace.
type story struct {
	name      string
	want, pod netstate.State
}

// stories are the states that the laws are checked with.
func stories(pod *world) []story {
	config := attach.Config{
		Mode: attach.Routed, Subnet: self(true).Lease.Subnet, SubnetV6: self(true).Lease.SubnetV6, MTU: 1430, IPv6: true, BridgeNetfilter: true,
	}
	bridge := config
	bridge.Mode, bridge.Bridge = attach.Bridge, "docker0"
	only4 := config
	only4.SubnetV6 = netip.Prefix{}
	pods := []attach.Pod{{
		UID: "1a", Namespace: "default", Name: "nginx-0", Netns: pod.ns.Path(),
		IPs: []netip.Addr{netip.MustParseAddr("10.200.0.5"), netip.MustParseAddr("fd10:ffff::5")},
	}}
	attached := func(name string, c attach.Config) story {
		host, in := attach.Plan(c, pods)
		return story{name, host, in["1a"]}
	}
	direct := self(false)
	direct.Options.DirectRouting = true
	gw := leases(4)
	for i := range gw {
		gw[i].BackendType = hostgw.Name
	}
	return []story{
		{name: "vxlan", want: vxlan.Backend{}.Plan(self(false), leases(10))},
		{name: "vxlan dual", want: vxlan.Backend{}.Plan(self(true), leases(10))},
		{name: "vxlan direct", want: vxlan.Backend{}.Plan(direct, leases(10))},
		{name: "host-gw", want: hostgw.Backend{}.Plan(self(true), gw)},
		attached("routed", config),
		attached("routed v4", only4),
		attached("bridge", bridge),
		{name: "nothing", want: netstate.New()},
	}
}

func TestReadEqualsPlan(t *testing.T) {
	w, pod := node(t)
	for _, s := range stories(pod) {
		t.Run(s.name, func(t *testing.T) {
			w.t, pod.t = t, t
			w.converge(s.want) // from empty, then from the story before
			pod.converge(s.pod)
			w.settled(s.want)
			pod.settled(s.pod)
			w.restart()
			pod.restart()
			if n := w.converge(s.want) + pod.converge(s.pod); n != 0 {
				t.Errorf("%d ops after a restart, want 0", n)
			}
		})
	}
	w.t = t
	if have := w.read(netstate.New()); have.Len() != 0 {
		t.Errorf("left behind:\n%s", have)
	}
}

// TestTheft takes each object away by its own command, and then changes it.
func TestTheft(t *testing.T) {
	for i := range 7 {
		w, pod := node(t)
		s := stories(pod)[i]
		t.Run(s.name, func(t *testing.T) {
			w.t, pod.t = t, t
			w.converge(s.want)
			for _, o := range s.want.Objects() {
				if sys, ok := o.(netstate.Sysctl); ok {
					w.ip("sysctl -q -w " + sys.Name + "=" + flip(sys.Value))
				} else {
					w.ip(netstate.Op{Verb: netstate.Del, Object: o}.Commands()...)
				}
				if w.converge(s.want) == 0 {
					t.Errorf("nothing to do after theft of %s", o)
				}
				pod.converge(s.pod) // what was in the pod went with the pair
				if n := w.converge(s.want); n != 0 {
					t.Errorf("%d ops after healing of %s", n, o)
				}
			}
			w.settled(s.want)
			pod.settled(s.pod)
		})
	}
}

func flip(v string) string {
	if v == "0" {
		return "1"
	}
	return "0"
}

func TestAlteration(t *testing.T) {
	w, _ := node(t)
	want := vxlan.Backend{}.Plan(self(true), leases(3))
	w.converge(want)
	for _, change := range []string{
		"ip link set flannel.1 mtu 1400",
		"ip link set flannel.1 address 02:00:00:00:00:99",
		"ip link set flannel.1 down",
		"ip link set flannel.1 alias mine",
		"ip neigh replace 10.0.1.0 lladdr 02:00:00:00:00:99 dev flannel.1 nud permanent",
		"ip neigh replace 10.0.1.0 lladdr 02:00:00:00:00:01 dev flannel.1 nud stale",
		"bridge fdb replace 02:00:00:00:00:01 dev flannel.1 dst 172.17.9.9 self permanent",
		"bridge fdb append 02:00:00:00:00:77 dev flannel.1 dst 172.17.9.9 self permanent",
		"ip route replace 10.0.1.0/24 via 172.17.0.9 dev eth0",
		"ip route replace 10.0.1.0/24 via 172.17.0.9 dev eth0 proto static",
		"ip -6 route replace fd10:1::/64 via fd17::9 dev eth0 proto static",
		"ip route add 10.99.0.0/16 dev flannel.1 proto 119",
		"ip route add blackhole 10.98.0.0/16 table 77 proto 119",
		"ip addr add 10.99.0.1/32 dev flannel.1",
		"ip link del flannel.1",
		"sysctl -q -w net/ipv6/conf/flannel-v6.1/accept_ra=1",
	} {
		w.ip(change)
		if w.converge(want) == 0 {
			t.Errorf("%s: not seen", change)
		}
		w.converge(want) // the MAC of a device takes its neighbours along
		w.settled(want)
	}
}

func TestOthersStay(t *testing.T) {
	w, _ := node(t)
	foreign := []string{
		"ip link add other type bridge",
		"ip addr add 192.0.2.1/24 dev other",
		"ip link set other up",
		"ip route add 198.51.100.0/24 via 172.17.0.9",
		"ip neigh add 172.17.0.9 lladdr 02:00:00:00:00:01 dev eth0 nud permanent",
	}
	w.ip(foreign...)
	want := vxlan.Backend{}.Plan(self(true), leases(3))
	w.converge(want)
	w.converge(netstate.New())
	for _, check := range []string{
		"ip addr del 192.0.2.1/24 dev other", "ip route del 198.51.100.0/24", "ip neigh del 172.17.0.9 dev eth0", "ip link del other",
	} {
		w.ip(check)
	}
}

// TestTakeOver starts with what flannel leaves.
func TestTakeOver(t *testing.T) {
	w, _ := node(t)
	w.ip(
		"ip link add flannel.1 address 02:00:00:00:ff:01 mtu 1450 type vxlan id 1 local 172.17.200.1 dev eth0 dstport 8472 nolearning",
		"ip addr add 10.200.0.0/32 dev flannel.1",
		"ip link set flannel.1 up",
		"ip neigh add 10.0.1.0 lladdr 02:00:00:00:00:01 dev flannel.1 nud permanent",
		"bridge fdb add 02:00:00:00:00:01 dev flannel.1 dst 172.17.0.1 self permanent",
		"ip route add 10.0.1.0/24 via 10.0.1.0 dev flannel.1 onlink",
		// A peer that left meanwhile.
		"ip neigh add 10.9.9.0 lladdr 02:00:00:00:09:09 dev flannel.1 nud permanent",
		"bridge fdb add 02:00:00:00:09:09 dev flannel.1 dst 172.17.9.9 self permanent",
		"ip route add 10.9.9.0/24 via 10.9.9.0 dev flannel.1 onlink",
	)
	before, ok, err := w.h.Link(context.Background(), "flannel.1")
	if err != nil || !ok {
		t.Fatal(ok, err)
	}
	if before.MAC != "02:00:00:00:ff:01" || before.VXLAN.VNI != 1 {
		t.Errorf("found %s", before)
	}
	want := vxlan.Backend{}.Plan(self(false), leases(2))
	for _, op := range netstate.Diff(want, w.read(want)) {
		if _, isLink := op.Object.(netstate.Link); isLink && op.Verb != netstate.Set {
			t.Errorf("device not kept: %s", op)
		}
	}
	w.converge(want)
	w.settled(want)
	w.ip("ip route show 10.0.1.0/24 proto 119")
	if err := w.run("ip route del 10.9.9.0/24"); err == nil {
		t.Error("route of a peer that left is still there")
	}
}

// TestVXLANChangesInPlace: source address, underlying device and learning change without a new device, and what is on it stays.
func TestVXLANChangesInPlace(t *testing.T) {
	w, _ := node(t)
	w.ip("ip link add eth7 type veth peer name hub7", "ip link set hub7 up", "ip link set eth7 up")
	want := vxlan.Backend{}.Plan(self(false), leases(2))
	w.converge(want)
	index := func() string {
		out, _, _ := strings.Cut(w.show("ip -o link show flannel.1"), ":")
		return out
	}
	before := index()
	for _, change := range []func(*overlay.Self){
		func(s *overlay.Self) { s.Addr = netip.MustParseAddr("172.17.200.9") }, func(s *overlay.Self) { s.Dev = "eth7" },
		func(s *overlay.Self) { s.Options.Learning = true }, func(s *overlay.Self) { s.Options.Learning = false },
	} {
		s := self(false)
		change(&s)
		want := vxlan.Backend{}.Plan(s, leases(2))
		ops := netstate.Diff(want, w.read(want))
		if len(ops) != 1 || ops[0].Verb != netstate.Set {
			t.Errorf("more than the device changes: %v", ops)
		}
		w.converge(want)
		w.settled(want)
	}
	if after := index(); after != before {
		t.Errorf("the device was made anew: index %s, then %s", before, after)
	}
}

// TestRename: a device in use gets another name with all that is on it.
func TestRename(t *testing.T) {
	w, _ := node(t)
	s := self(false)
	s.Options.StandIn = true
	w.converge(vxlan.Backend{}.Plan(s, leases(2)))
	ctx := context.Background()
	if err := w.h.Rename(ctx, "weft4.1", "flannel.1"); err != nil {
		t.Fatal(err)
	}
	want := vxlan.Backend{}.Plan(self(false), leases(2))
	if ops := netstate.Diff(want, w.read(want)); len(ops) > 0 {
		t.Errorf("left to do: %v", ops)
	}
	if err := w.h.Rename(ctx, "eth0", "eth9"); !errors.Is(err, rtnl.ErrOthers) {
		t.Errorf("somebody else's link: %v", err)
	}
	if err := w.h.Rename(ctx, "weft4.1", "x"); !errors.Is(err, rtnl.ErrNoLink) {
		t.Errorf("no link: %v", err)
	}
}

func TestRefusals(t *testing.T) {
	w, _ := node(t)
	ctx := context.Background()
	bridge := netstate.New(netstate.Link{Name: "eth0", Type: netstate.TypeBridge, MTU: 1500, Up: true, Alias: "weft:bridge"})
	err := w.apply(netstate.Diff(bridge, w.read(bridge)))
	if !errors.Is(err, rtnl.ErrOthers) {
		t.Errorf("a bridge in eth0's place: %v", err)
	}
	w.ip("ip link show eth0")

	ops := []netstate.Op{
		{Object: netstate.Route{Dst: netip.MustParsePrefix("10.1.0.0/24"), Via: netip.MustParseAddr("172.17.0.1"), Dev: "eth0"}},
		{Object: netstate.Route{Dst: netip.MustParsePrefix("10.2.0.0/24"), Via: netip.MustParseAddr("192.0.2.1"), Dev: "eth0"}},
		{Object: netstate.Neigh{IP: netip.MustParseAddr("10.2.0.1"), MAC: "02:00:00:00:00:01", Dev: "none"}},
		{Object: netstate.Sysctl{Name: "net/ipv4/ip_forward", Value: "1"}},
		{Object: netstate.Route{Dst: netip.MustParsePrefix("10.3.0.0/24"), Via: netip.MustParseAddr("172.17.0.1"), Dev: "eth0"}},
	}
	err = w.h.Apply(ctx, ops)
	for _, part := range []string{"ip route add 10.2.0.0/24 via 192.0.2.1", "10.2.0.1", "link none: no such link", "ip_forward"} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("error does not name %q: %v", part, err)
		}
	}
	if !errors.Is(err, rtnl.ErrKind) || !errors.Is(err, rtnl.ErrNoLink) || !errors.Is(err, unix.ENETUNREACH) {
		t.Errorf("reasons are lost: %v", err)
	}
	w.ip("ip route del 10.1.0.0/24", "ip route del 10.3.0.0/24") // the others were done
	if err := w.h.Apply(ctx, ops[:1]); err != nil {
		t.Error(err)
	}
	if err := w.h.Apply(ctx, ops[:1]); !errors.Is(err, unix.EEXIST) {
		t.Errorf("a route was added over one that was not read: %v", err)
	}

	// What the kernel made with an address is never replaced.
	own := netstate.New(netstate.Route{Dst: netip.MustParsePrefix("172.17.0.0/16"), Via: netip.MustParseAddr("172.17.0.1"), Dev: "eth0"})
	if err := w.apply(netstate.Diff(own, w.read(own))); !errors.Is(err, unix.EEXIST) {
		t.Errorf("a connected route was replaced: %v", err)
	}

	canceled, cancel := context.WithCancel(ctx)
	cancel()
	if err := w.h.Apply(canceled, ops); !errors.Is(err, context.Canceled) {
		t.Errorf("a canceled context: %v", err)
	}
	if _, err := w.h.Read(ctx, netstate.New()); err != nil {
		t.Errorf("handle after a canceled call: %v", err)
	}
}

// TestManyFailures has more ops fail than an error should name, and than the kernel's answers to one batch.
func TestManyFailures(t *testing.T) {
	w, _ := node(t)
	var ops []netstate.Op
	for i := range 3000 {
		ops = append(ops, netstate.Op{Object: netstate.Route{
			Dst: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 0}), 24), Via: netip.MustParseAddr("192.0.2.1"), Dev: "eth0",
		}})
	}
	err := w.h.Apply(context.Background(), ops)
	if err == nil || !strings.Contains(err.Error(), "and 2980 more operations failed") || !errors.Is(err, unix.ENETUNREACH) {
		t.Errorf("error %v", err)
	}
	var op *rtnl.OpError
	if !errors.As(err, &op) || op.Op.Object != ops[0].Object {
		t.Errorf("first failure %v", op)
	}
}

// TestPeerElsewhere gives the pod another namespace: the pair must be made anew.
func TestPeerElsewhere(t *testing.T) {
	w, pod := node(t)
	other, err := netns.New("")
	w.must(err)
	defer other.Close()
	link := netstate.Link{
		Name: "veth1", Type: netstate.TypeVeth, MTU: 1450, MAC: "02:00:00:00:00:01", Alias: "weft:pod", Up: true,
		Peer: netstate.Peer{Name: "eth0", Netns: pod.ns.Path(), MAC: "02:00:00:00:00:02"},
	}
	w.converge(netstate.New(link))
	link.Peer.Netns = other.Path()
	want := netstate.New(link)
	if ops := netstate.Diff(want, w.read(want)); len(ops) != 2 || ops[0].Verb != netstate.Del || ops[1].Verb != netstate.Add {
		t.Errorf("ops %v, want a new pair", ops)
	}
	w.converge(want)
	w.settled(want)
	if err := pod.run("ip link show eth0"); err == nil {
		t.Error("the old namespace still has its end")
	}
}
