package nft_test

import (
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"weft/internal/kernel/netns"
	kernel "weft/internal/kernel/nft"
	"weft/internal/nft"
)

func TestMain(m *testing.M) { os.Exit(netns.Main(m)) }

func open(t testing.TB) *kernel.Conn {
	t.Helper()
	netns.Need(t.(*testing.T))
	c, err := kernel.Open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.Apply([]nft.Op{{Verb: nft.Add, Kind: nft.KindTable, Family: nft.INet, Table: "weft"}, {Verb: nft.Del, Kind: nft.KindTable, Family: nft.INet, Table: "weft"}})
		_ = c.Close()
	})
	return c
}

// everything is a table with every statement, field and kind of set there is.
const everything = `table inet weft {
	set allowed4 {
		type ipv4_addr . inet_proto . inet_service . ipv4_addr
		flags interval
		elements = { 1.2.3.4 . tcp . 80 . 10.0.0.0-10.255.255.255,
			     1.2.3.4 . tcp . 80 . 11.0.0.0-11.1.2.255 }
	}

	map eps4 {
		typeof ip daddr . meta l4proto . th dport . numgen random mod 65536 : ip daddr . th dport
		elements = { 10.254.0.1 . tcp . 443 . 0 : 10.0.0.1 . 6443,
			     10.254.0.1 . tcp . 443 . 1 : 10.0.0.2 . 6443 }
	}

	map eps6 {
		typeof ip6 daddr . meta l4proto . th dport . numgen random mod 65536 : ip6 daddr . th dport
		elements = { fd00::1 . tcp . 443 . 0 : fd01::1 . 6443 }
	}

	set nets4 {
		type ipv4_addr
		flags interval
		elements = { 10.0.0.0-10.255.255.255,
			     192.168.1.1 }
	}

	map recent4 {
		type ipv4_addr . ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service
		flags dynamic,timeout
		timeout 10800s
		size 65535
	}

	map recent6 {
		type ipv6_addr . ipv6_addr . inet_proto . inet_service : ipv6_addr . inet_service
		flags dynamic,timeout
		timeout 10800s
		size 65535
	}

	map vips4 {
		type ipv4_addr . inet_proto . inet_service : verdict
		elements = { 10.254.0.1 . tcp . 443 : goto n2-4,
			     10.254.0.2 . udp . 53 : drop }
	}

	chain a2-4 {
		ip saddr . ip daddr . meta l4proto . th dport @recent4 update @recent4 { ip saddr . ip daddr . meta l4proto . th dport timeout 60s : ip daddr . th dport }
		dnat ip to ip saddr . ip daddr . meta l4proto . th dport map @recent4
	}

	chain e-1 {
		update @recent4 { ip saddr . ip daddr . meta l4proto . th dport : 10.0.0.1 . 80 }
		update @recent6 { ip6 saddr . ip6 daddr . meta l4proto . th dport timeout 1s : fd00::1 . 80 }
		meta l4proto tcp dnat ip to 10.0.0.1:80
		meta l4proto tcp dnat ip6 to [fd00::1]:80
	}

	chain n2-4 {
		ip saddr != 10.0.0.0/9 meta mark set meta mark | 0x00004000
		dnat ip to ip daddr . meta l4proto . th dport . numgen random mod 2 map @eps4
		dnat ip6 to ip6 daddr . meta l4proto . th dport . numgen random mod 2 map @eps6
	}

	chain no-endpoints {
		meta l4proto tcp reject with tcp reset
		meta l4proto udp reject with icmpx type port-unreachable
		reject with icmpx type admin-prohibited
	}

	chain postrouting {
		type nat hook postrouting priority 99; policy accept;
		meta mark & 0x00004000 == 0x00004000 meta mark set meta mark ^ 0x00004000 masquerade fully-random
		meta mark 0x00000001 meta mark set 0x00000002 masquerade
		meta mark & 0x0000000f != 0x00000001 meta mark set meta mark & 0xffff0000 ^ 0x00000003
		ct status snat,dnat ct direction original oifname "flannel.*" fib saddr type local masquerade
		ip daddr . meta l4proto . th dport . ip saddr != @allowed4 accept
	}

	chain prerouting {
		type nat hook prerouting priority -100; policy accept;
		meta nfproto ipv4 ip saddr 10.0.0.1 ip6 daddr fd00::/64 accept
		meta nfproto ipv6 meta nfproto ipv4 jump empty
		ip daddr . meta l4proto . th dport vmap @vips4
		fib daddr type local ip daddr != 127.0.0.0/8 counter return comment "to us"
		ip saddr @nets4 ip saddr 0.0.0.0/1 th sport 53 th dport != 8472 continue
	}

	chain empty {
	}

	chain raw {
		type filter hook prerouting priority -300; policy drop;
		meta l4proto udp th dport 8472 notrack comment "VXLAN"
		meta pkttype host iifname "eth0" iifname != "veth*" ct state established,related drop
		ct mark & 0x00000001 == 0x00000001 meta l4proto 99 accept
	}
}
`

func parseTable(t testing.TB, text string) nft.Table {
	t.Helper()
	table, err := nft.ParseTable(text)
	if err != nil {
		t.Fatal(err)
	}
	table.Sort()
	return table
}

func TestEverythingRoundTrip(t *testing.T) {
	c := open(t)
	want := parseTable(t, everything)
	if err := c.Apply(nft.Diff(want, nil)); err != nil {
		t.Fatal(err)
	}
	have, err := c.Read(nft.INet, "weft")
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want.String(), have.String()); d != "" {
		t.Error(d)
	}
	if ops := nft.Diff(want, have); len(ops) != 0 {
		t.Errorf("second Diff: %v", ops)
	}
	out, err := exec.Command("nft", "list", "ruleset").CombinedOutput()
	t.Logf("%s%v", out, err)
	_, _ = strings.Cut, netip.Addr{}
}
