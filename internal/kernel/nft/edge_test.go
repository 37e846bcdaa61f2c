package nft_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"weft/internal/explain"
	"weft/internal/kernel/netns"
	kernel "weft/internal/kernel/nft"
	"weft/internal/nft"
	"weft/internal/overlay/edge"
	"weft/internal/packet"
)

// edgePort is where the node takes VXLAN packets.
const edgePort = 8472

// edgeMembers are the peers: .2 holds a /24 and a /64, .3 a /20, which is another length.
func edgeMembers() []edge.Member {
	m := func(outer, subnet string) edge.Member {
		return edge.Member{VNI: 1, Outer: netip.MustParseAddr(outer), Subnet: netip.MustParsePrefix(subnet)}
	}
	return []edge.Member{
		m("192.0.2.2", "172.16.28.0/24"), m("192.0.2.3", "172.16.32.0/20"), m("2001:db8::2", "fd00:16:28::/64"),
	}
}

func edgeConfig(members []edge.Member) edge.Config {
	return edge.Config{
		Check: true, V4: true, V6: true, Untracked: []uint16{edgePort},
		Segments: []edge.Segment{{Port: edgePort, VNI: 1}}, Shapes: edge.ShapesOf(members),
	}
}

func edgeTable(members []edge.Member) nft.Table {
	parts := map[string]nft.Table{"": edge.Rules(edgeConfig(members))}
	for i, m := range members {
		parts[fmt.Sprint(i)] = edge.Elements(m)
	}
	return nft.Union(parts)
}

// frame is a VXLAN packet's UDP payload.
type frame struct {
	vni    uint32
	typ    uint16
	src    string // inner source
	length int    // bytes of the payload, 0: with 20 bytes behind the inner header
}

func (f frame) bytes() []byte {
	b := make([]byte, 8+14, 4096)
	b[0] = 0x08
	binary.BigEndian.PutUint32(b[4:], f.vni<<8)
	binary.BigEndian.PutUint16(b[8+12:], f.typ)
	src := netip.MustParseAddr(f.src)
	if src.Is4() {
		b = append(b, 0x45, 0, 0, 40, 0, 0, 0, 0, 64, 17, 0, 0)
		b = append(b, src.AsSlice()...)
		b = append(b, 172, 16, 1, 1)
	} else {
		b = append(b, 0x60, 0, 0, 0, 0, 0, 17, 64)
		b = append(b, src.AsSlice()...)
		b = append(b, make([]byte, 16)...)
	}
	n := f.length
	if n == 0 {
		n = len(b) + 20
	}
	for len(b) < n {
		b = append(b, 0)
	}
	return b[:n]
}

// edgeWire joins the test's namespace, 192.0.2.1, with one that has the peers' and a stranger's addresses.
func edgeWire(t *testing.T) *netns.NS {
	t.Helper()
	ns, err := netns.New("/run/netns/underlay")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ns.Close() })
	noDAD(t)
	if err := ns.Do(func() error { noDAD(t); return nil }); err != nil {
		t.Fatal(err)
	}
	run(t, `ip link add vu type veth peer name eth0 netns underlay
		ip addr add 192.0.2.1/24 dev vu; ip addr add 2001:db8::1/64 dev vu nodad; ip link set vu up; ip -n underlay link set eth0 up
		for n in 2 3 9; do ip -n underlay addr add 192.0.2.$n/24 dev eth0; ip -n underlay addr add 2001:db8::$n/64 dev eth0 nodad; done`)
	t.Cleanup(func() { run(t, "ip link del vu") })
	return ns
}

// send sends the frame from the outer source.
func (f frame) send(ns *netns.NS, from string) error {
	return ns.Do(func() error {
		src := netip.MustParseAddr(from)
		to := "192.0.2.1"
		if src.Is6() {
			to = "2001:db8::1"
		}
		d := net.Dialer{LocalAddr: net.UDPAddrFromAddrPort(netip.AddrPortFrom(src, 0))}
		c, err := d.DialContext(context.Background(), "udp", net.JoinHostPort(to, fmt.Sprint(edgePort)))
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = c.Write(f.bytes())
		return err
	})
}

const (
	ip4 = nft.EtherIPv4
	ip6 = nft.EtherIPv6
	arp = 0x0806
)

var edgeCases = []struct {
	name, from string
	frame      frame
	want       edge.Reason // "": taken
}{
	{"a pod of a peer", "192.0.2.2", frame{1, ip4, "172.16.28.7", 0}, ""},
	{"the peer's host itself", "192.0.2.2", frame{1, ip4, "172.16.28.0", 0}, ""},
	{"a pod of a peer with a longer subnet", "192.0.2.3", frame{1, ip4, "172.16.47.255", 0}, ""},
	{"a pod in fragments", "192.0.2.2", frame{1, ip4, "172.16.28.7", 3000}, ""},
	{"IPv6", "2001:db8::2", frame{1, ip6, "fd00:16:28::7", 0}, ""},
	{"IPv6 in fragments", "2001:db8::2", frame{1, ip6, "fd00:16:28::7", 3000}, ""},
	{"no peer", "192.0.2.9", frame{1, ip4, "172.16.28.7", 0}, edge.Peer},
	{"no peer, in fragments", "192.0.2.9", frame{1, ip4, "172.16.28.7", 3000}, edge.Peer},
	{"no peer, IPv6", "2001:db8::9", frame{1, ip6, "fd00:16:28::7", 0}, edge.Peer},
	{"no peer, IPv6 in fragments", "2001:db8::9", frame{1, ip6, "fd00:16:28::7", 3000}, edge.Peer},
	{"another peer's pod", "192.0.2.2", frame{1, ip4, "172.16.32.7", 0}, edge.Source},
	{"the neighbour of a subnet", "192.0.2.3", frame{1, ip4, "172.16.48.0", 0}, edge.Source},
	{"the peer's host address inside", "192.0.2.2", frame{1, ip4, "192.0.2.2", 0}, edge.Source},
	{"another subnet, IPv6", "2001:db8::2", frame{1, ip6, "fd00:16:29::7", 0}, edge.Source},
	{"IPv6 inside IPv4, which nobody announced", "192.0.2.2", frame{1, ip6, "fd00:16:28::7", 0}, edge.Source},
	{"another network", "192.0.2.2", frame{2, ip4, "172.16.28.7", 0}, edge.VNI},
	{"another network, IPv6", "2001:db8::2", frame{1 << 23, ip6, "fd00:16:28::7", 0}, edge.VNI},
	{"ARP", "192.0.2.2", frame{1, arp, "172.16.28.7", 0}, edge.EtherType},
	{"a VLAN tag", "2001:db8::2", frame{1, 0x8100, "fd00:16:28::7", 0}, edge.EtherType},
	{"no VXLAN header, which no device takes", "192.0.2.2", frame{1, ip4, "172.16.28.7", 7}, ""},
	{"no inner header", "192.0.2.2", frame{1, ip4, "172.16.28.7", 8}, edge.Short},
	{"half an inner header", "192.0.2.2", frame{1, ip4, "172.16.28.7", 30}, edge.Source},
}

// TestEdgeCheck sends real packets and reads back who was refused and why.
func TestEdgeCheck(t *testing.T) {
	c := open(t)
	ns := edgeWire(t)
	members := edgeMembers()
	program(t, c, edgeTable(members))
	run(t, "nft list ruleset >/dev/null") // nft 1.0.6 crashes on some types
	l, err := net.ListenPacket("udp", fmt.Sprintf(":%d", edgePort))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, x := range edgeCases {
		t.Run(x.name, func(t *testing.T) {
			before := counts(t, c)
			if err := x.frame.send(ns, x.from); err != nil {
				t.Fatal(err)
			}
			want, limit := map[string]uint64{}, 30*time.Second
			if x.want != "" {
				want[x.want.Chain()], limit = 1, 50*time.Millisecond
				for end := time.Now().Add(10 * time.Second); counts(t, c)[x.want.Chain()] == before[x.want.Chain()] && time.Now().Before(end); {
					time.Sleep(time.Millisecond)
				}
			}
			got := taken(t, l, limit)
			if got != (x.want == "") {
				t.Errorf("taken is %t", got)
			}
			if got := foretold(t, c, x.from, x.frame); x.frame.length == 0 && got != x.want {
				t.Errorf("explain foretells %q", got)
			}
			for chain, n := range counts(t, c) {
				if n -= before[chain]; n != want[chain] {
					t.Errorf("%s counted %d, want %d", chain, n, want[chain])
				}
			}
		})
	}
	if d := cmp.Diff(read(t, c).String(), nft.Apply(nil, nft.Diff(edgeTable(members), nil)...).String()); d != "" {
		t.Errorf("the table is another one after traffic:\n%s", d)
	}
	refusedOnes(t, c, edgeConfig(members))
}

// TestEdgeCheckJudges: which packets that no peer sent are this host's to refuse, by where they go.
func TestEdgeCheckJudges(t *testing.T) {
	c := open(t)
	ns := edgeWire(t)
	program(t, c, edgeTable(edgeMembers()))
	run(t, `ip link add other type veth peer name onward; ip addr add 198.51.100.1/32 dev other; ip link set other up
		ip addr add 198.18.0.1/24 dev onward; ip link set onward up; sysctl -qw net.ipv4.ip_forward=1
		ip -n underlay route add 198.51.100.1 via 192.0.2.1; ip -n underlay route add 198.18.0.0/24 via 192.0.2.1`)
	t.Cleanup(func() { run(t, "sysctl -qw net.ipv4.ip_forward=0; ip link del onward") })
	vrf := exec.Command("ip", "link", "add", "red", "type", "vrf", "table", "10").Run() == nil
	if vrf {
		run(t, `ip link set red up; ip link add vr type veth peer name eth1 netns underlay; ip link set vr master red
			ip addr add 203.0.113.1/24 dev vr; ip link set vr up; ip -n underlay addr add 203.0.113.9/24 dev eth1; ip -n underlay link set eth1 up`)
		t.Cleanup(func() { run(t, "ip link del vr; ip link del red") })
	}
	for _, x := range []struct {
		name, to string
		judged   uint64
	}{
		{"the interface's address", "192.0.2.1", 1},
		{"another interface's address", "198.51.100.1", 1},
		{"the address of an interface in a VRF", "203.0.113.1", 1},
		{"broadcast", "192.0.2.255", 1},
		{"another host", "198.18.0.7", 0},
	} {
		if x.to[:3] == "203" && !vrf {
			t.Log("no VRF in this kernel: not tried")
			continue
		}
		before := counts(t, c)[edge.Peer.Chain()]
		err := ns.Do(func() error {
			d := net.Dialer{Control: func(_, _ string, raw syscall.RawConn) error {
				return raw.Control(func(fd uintptr) { _ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_BROADCAST, 1) })
			}}
			if x.to[:3] != "203" {
				d.LocalAddr = &net.UDPAddr{IP: net.IPv4(192, 0, 2, 9)}
			}
			conn, err := d.Dial("udp", net.JoinHostPort(x.to, fmt.Sprint(edgePort)))
			if err != nil {
				return err
			}
			defer conn.Close()
			_, err = conn.Write(frame{1, ip4, "172.16.28.7", 0}.bytes())
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		got := counts(t, c)[edge.Peer.Chain()] - before
		for end := time.Now().Add(10 * time.Second); got != x.judged && time.Now().Before(end); got = counts(t, c)[edge.Peer.Chain()] - before {
			time.Sleep(5 * time.Millisecond)
		}
		if got != x.judged {
			t.Errorf("to %s: %d refused, want %d", x.name, got, x.judged)
		}
	}
}

// foretold is what explain says of the frame, from the table as the kernel has it: the reason of its refusal.
func foretold(t *testing.T, c *kernel.Conn, from string, f frame) edge.Reason {
	t.Helper()
	p := explain.Packet{
		Flow:   packet.Flow{Proto: "udp", Src: netip.AddrPortFrom(netip.MustParseAddr(from), 0), Dst: netip.MustParseAddrPort("192.0.2.1:8472")},
		Inside: &explain.Inside{VNI: f.vni, EtherType: f.typ, Src: netip.MustParseAddr(f.src)},
	}
	if p.Src.Addr().Is6() {
		p.Dst = netip.MustParseAddrPort("[2001:db8::1]:8472")
	}
	local := func(a netip.Addr) bool { return a == p.Dst.Addr() }
	for _, o := range (explain.NFTables{Table: *read(t, c), Local: local}).Eval(explain.Prerouting, p) {
		for _, r := range edge.Reasons() {
			if o.Action == explain.Drop && strings.Contains(o.Rule, r.Chain()+":") {
				return r
			}
		}
	}
	return ""
}

// refusedOnes checks that those refused can be named.
func refusedOnes(t *testing.T, c *kernel.Conn, cfg edge.Config) {
	t.Helper()
	got := map[string]bool{}
	for _, w := range edge.Refused(cfg) {
		keys, err := c.Members(nft.INet, nft.TableName, w.Set)
		if err != nil {
			t.Fatal(err)
		}
		for _, k := range keys {
			got[string(w.Reason)+" "+k.Text(w.Set.Key)] = true
		}
	}
	for _, x := range edgeCases {
		who := x.from
		if x.want == edge.Peer || x.want == edge.Source {
			who += " . " + netip.MustParseAddr(x.frame.src).String()
		}
		if x.want != "" && x.frame.length != 30 && !got[string(x.want)+" "+who] {
			t.Errorf("%s: %s %s is not among those refused: %v", x.name, x.want, who, got)
		}
	}
}

func counts(t testing.TB, c *kernel.Conn) map[string]uint64 {
	t.Helper()
	n, err := c.Counts(nft.INet, nft.TableName)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// taken reports whether a packet arrives within the limit.
func taken(t *testing.T, l net.PacketConn, limit time.Duration) bool {
	t.Helper()
	if err := l.SetReadDeadline(time.Now().Add(limit)); err != nil {
		t.Fatal(err)
	}
	_, _, err := l.ReadFrom(make([]byte, 8192))
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal(err)
	}
	return err == nil
}
