package netstate

import (
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
)

// samples are objects of every kind, with every field used.
func samples() []Object {
	ip, p := netip.MustParseAddr, netip.MustParsePrefix
	return []Object{
		Link{
			Name: "flannel.1", Type: TypeVXLAN, MTU: 1450, MAC: "02:00:00:00:00:01", Alias: "weft:vtep", Up: true,
			VXLAN: VXLAN{VNI: 1, Local: ip("172.17.42.31"), Dev: "eth0", Port: 8472},
		},
		Link{Name: "flannel-v6.1", Type: TypeVXLAN, VXLAN: VXLAN{VNI: 1<<24 - 1, Local: ip("fd00::1"), Learning: true, GBP: true, Proxy: true}},
		Link{Name: "docker0", Type: TypeBridge, MTU: 1450, MAC: "02:42:ac:10:1c:01", Alias: `weft:"odd" alias`, Up: true},
		Link{
			Name: "veth0123456789a", Type: TypeVeth, MTU: 1450, Master: "docker0", Up: true,
			Port: Port{Hairpin: true, NeighSuppress: true, NoLearning: true, Isolated: true},
			Peer: Peer{Name: "eth0", Netns: "/run/netns/a", MAC: "02:42:ac:10:1c:05"},
		},
		Link{Name: "eth0", Type: TypeVeth, MTU: 1450},
		Link{Name: "flannel0", Type: TypeTUN, MTU: 1472, Up: true},
		Addr{Dev: "docker0", Prefix: p("172.16.28.1/24")},
		Addr{Dev: "docker0", Prefix: p("fd00::1/64")},
		Neigh{Dev: "flannel.1", IP: ip("172.16.78.0"), MAC: "02:00:00:00:00:02"},
		Neigh{Dev: "flannel-v6.1", IP: ip("fd00::"), MAC: "02:00:00:00:00:02"},
		FDB{Dev: "flannel.1", MAC: "02:00:00:00:00:02", Dst: ip("172.17.42.32")},
		FDB{Dev: "vxlan1", MAC: "00:00:00:00:00:00", Dst: ip("fd00::2")},
		Route{Dst: p("172.16.78.0/24"), Via: ip("172.16.78.0"), Dev: "flannel.1", Onlink: true},
		Route{Dst: p("0.0.0.0/0"), Via: ip("fe80::1"), Dev: "eth0"},
		Route{Dst: p("fd00:1::/64"), Via: ip("fd00:1::"), Dev: "flannel-v6.1", Table: 100, Metric: 5, MTU: 1400, Src: ip("fd00::1"), Proto: 3},
		Route{Type: "unreachable", Dst: p("172.16.28.0/24"), Metric: 65535},
		Route{Dst: p("172.16.28.5/32"), Dev: "veth0", Scope: "global"},
		Sysctl{Name: "net/ipv4/conf/eth0.100/rp_filter", Value: "1"},
		Sysctl{Name: "net/ipv4/tcp_rmem", Value: "4096 131072 6291456"},
		Tunnel{Dev: "flannel0", Subnet: p("172.16.78.0/24"), Remote: netip.MustParseAddrPort("172.17.42.32:8285")},
		Listener{Service: "default/a:", Protocol: "TCP", Addr: netip.MustParseAddrPort("0.0.0.0:50948")},
		Listener{
			Service: "default/w:", Protocol: "TCP", Addr: netip.MustParseAddrPort("[::]:50950"), Balance: "maglev", Affinity: 60,
			Endpoints: []netip.AddrPort{netip.MustParseAddrPort("10.0.0.1:80"), netip.MustParseAddrPort("[fd00::1]:80")}, Weights: []uint8{1, 200},
		},
		Listener{
			Service: "default/a:http", Protocol: "UDP", Addr: netip.MustParseAddrPort("[::]:50948"), Affinity: 10800, Drain: true,
			Endpoints: []netip.AddrPort{netip.MustParseAddrPort("172.16.28.5:80"), netip.MustParseAddrPort("[fd00::5]:80")},
		},
		Listener{
			Service: "default/a:/localhost", Protocol: "TCP", Addr: netip.MustParseAddrPort("127.0.0.1:30080"), Fixed: true, Affinity: 1,
		},
		Tunnel{
			Dev: "flannel-wg-v6", Subnet: p("fd10:0:0:1::/64"), Local: netip.MustParseAddrPort("[::]:51821"),
			Remote: netip.MustParseAddrPort("[fd17::32]:51821"), PeerKey: "hRhLNbAzKmL8dVd5Kj7GQLBf6BsTO2zi2V0cBvBl7R8=", Keepalive: 25,
		},
	}
}

func TestParseLaw(t *testing.T) {
	seen := map[Kind]bool{}
	for _, o := range samples() {
		seen[o.Kind()] = true
		got, err := Parse(o.Kind(), o.String())
		if err != nil {
			t.Error(err)
			continue
		}
		if got.String() != o.String() {
			t.Errorf("Parse(%q) prints as %q", o, got)
		}
		if _, isListener := o.(Listener); !isListener && got != o {
			t.Errorf("Parse(%q) = %#v, want %#v", o, got, o)
		}
	}
	for k := range Kind(len(kindNames)) {
		if !seen[k] && k != KindRule {
			t.Errorf("no sample of kind %s", k)
		}
	}
	for seed := range uint64(500) {
		s := randomState(rand.New(rand.NewPCG(seed, 3)))
		back := New()
		for line := range strings.Lines(s.String()) {
			o, err := ParseLine(strings.TrimSuffix(line, "\n"))
			if err != nil {
				t.Fatal(err)
			}
			back.Add(o)
		}
		if !Equal(s, back) {
			t.Fatalf("seed %d: state\n%sread back as\n%s", seed, s, back)
		}
	}
}

func TestParseErrors(t *testing.T) {
	for _, c := range []struct {
		kind       Kind
		text, want string
	}{
		{KindLink, "", "device name is missing"},
		{KindLink, "a/b mtu 1 up type dummy", `"a/b"`},
		{KindLink, "averyveryverylongname mtu 1 up type dummy", "1 to 15 bytes"},
		{KindLink, "x mtu -1 up type dummy", `MTU "-1"`},
		{KindLink, "x mtu 01 up type dummy", `MTU "01"`},
		{KindLink, "x mtu 1 address 02:00 up type dummy", `address "02:00"`},
		{KindLink, "x mtu 1 sideways type dummy", `want "down"`},
		{KindLink, "x mtu 1 up type vxlan id 16777216 dstport 1", `VNI "16777216"`},
		{KindLink, "x mtu 1 up type vxlan id 1 dstport 65536", "65536"},
		{KindLink, "x mtu 1 up type dummy now", `unexpected word "now"`},
		{KindLink, `x mtu 1 alias "a up type dummy`, "not closed"},
		{KindAddr, "10.0.0.1 dev x", `"10.0.0.1"`},
		{KindAddr, "fd00::1/64 dev x", `"nodad"`},
		{KindNeigh, "10.0.0.1 lladdr 02:00:00:00:00:0G dev x nud permanent", "02:00:00:00:00:0G"},
		{KindNeigh, "10.0.0.1 lladdr 02:00:00:00:00:01 dev x nud stale", `want "permanent", have "stale"`},
		{KindFDB, "02:00:00:00:00:01 dev x dst nowhere self permanent", `dst "nowhere"`},
		{KindRoute, "10.0.0.1/24 proto 119", "host bits: want 10.0.0.0/24"},
		{KindRoute, "10.0.0.0/24 dev x", `want "proto"`},
		{KindRoute, "10.0.0.0/24 proto 256", `"256"`},
		{KindRoute, "10.0.0.0/24 proto 119 scope galaxy", `"galaxy"`},
		{KindRoute, "10.0.0.0/24 proto 119 metric 0", "leave it out"},
		{KindRoute, "10.0.0.0/24 via fd00::1 proto 119", "inet6"},
		{KindSysctl, "net/ipv4/ip_forward", "name=value"},
		{KindSysctl, "net/../kernel/panic=1", "below /proc/sys"},
		{KindTunnel, "10.0.0.0/24 dev x remote 1.2.3.4", `"1.2.3.4"`},
		{KindListener, "SCTP 1.2.3.4:5 service a endpoints none", `"SCTP"`},
		{KindListener, "TCP 1.2.3.4:5 service a endpoints 1.2.3.4:5*0", `weight "0"`},
		{KindListener, "TCP 1.2.3.4:5 service a endpoints 1.2.3.4:5*1,1.2.3.5:5", `for all or for none`},
		{KindListener, "TCP 1.2.3.4:5 service a endpoints none balance best", `balance "best"`},
		{KindRule, "x", "no object"},
		{KindRoute, strings.Repeat("x", 10000), "..."},
	} {
		o, err := Parse(c.kind, c.text)
		if err == nil {
			t.Errorf("Parse(%s, %q) = %v, want an error", c.kind, c.text, o)
			continue
		}
		if !strings.Contains(err.Error(), c.want) {
			t.Errorf("Parse(%s, %q): %v, want it to say %q", c.kind, c.text, err, c.want)
		}
		if len(err.Error()) > 400 {
			t.Errorf("Parse(%s, %.20q...): error of %d bytes", c.kind, c.text, len(err.Error()))
		}
	}
	if _, err := ParseLine("gate x"); err == nil || !strings.Contains(err.Error(), `"gate"`) {
		t.Errorf("unknown kind: %v", err)
	}
}

func FuzzParse(f *testing.F) {
	for _, o := range samples() {
		f.Add(uint8(o.Kind()), o.String())
	}
	f.Fuzz(func(t *testing.T, kind uint8, text string) {
		o, err := Parse(Kind(kind), text)
		if err != nil {
			if len(err.Error()) > 1000 {
				t.Errorf("error of %d bytes", len(err.Error()))
			}
			return
		}
		again, err := Parse(o.Kind(), o.String())
		if err != nil {
			t.Fatalf("Parse(%q) = %q, which does not parse: %v", text, o, err)
		}
		if again.String() != o.String() || again.Key() != o.Key() {
			t.Fatalf("Parse(%q) = %q, then %q", text, o, again)
		}
	})
}

func TestOpCommands(t *testing.T) {
	link := samples()[0].(Link)
	changed := link
	changed.MTU, changed.Up, changed.Alias = 1400, false, "mine"
	veth := samples()[3].(Link)
	free := veth
	free.Master, free.Port = "", Port{}
	route := samples()[12].(Route)
	for _, c := range []struct {
		op   Op
		want string
	}{
		{Op{Object: link}, "ip link add dev flannel.1 mtu 1450 address 02:00:00:00:00:01 type vxlan id 1 local 172.17.42.31 dev eth0 dstport 8472" +
			" nolearning; ip link set dev flannel.1 alias weft:vtep; ip link set dev flannel.1 up"},
		{Op{Set, link, changed}, "ip link set dev flannel.1 mtu 1450 alias weft:vtep; ip link set dev flannel.1 up"},
		{Op{Set, veth, free}, "ip link set dev veth0123456789a master docker0; ip link set dev veth0123456789a type bridge_slave" +
			" hairpin on neigh_suppress on learning off isolated on"},
		{Op{Set, free, veth}, "ip link set dev veth0123456789a nomaster"},
		{Op{Verb: Del, Object: link}, "ip link del dev flannel.1"},
		{
			Op{Object: Link{Name: "flannel0", Type: TypeTUN, MTU: 1472, Up: true}},
			"ip tuntap add dev flannel0 mode tun; ip link set dev flannel0 mtu 1472; ip link set dev flannel0 up",
		},
		{Op{Set, route, route}, "ip route replace 172.16.78.0/24 via 172.16.78.0 dev flannel.1 proto 119 onlink"},
		{Op{Object: Sysctl{Name: "net/ipv4/ip_forward", Value: "1"}}, "sysctl -w net/ipv4/ip_forward=1"},
		{Op{Verb: Del, Object: Sysctl{Name: "net/ipv4/ip_forward", Value: "1"}}, "del sysctl net/ipv4/ip_forward=1"},
		{Op{Object: samples()[20]}, "add listener TCP 0.0.0.0:50948 service default/a: endpoints none"},
	} {
		if got := c.op.String(); got != c.want {
			t.Errorf("op prints as\n%s\nwant\n%s", got, c.want)
		}
	}
}
