package sources_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"weft/internal/explain"
	"weft/internal/kernel/netns"
	kernelnft "weft/internal/kernel/nft"
	kernelxt "weft/internal/kernel/xt"
	"weft/internal/masq"
	"weft/internal/nft"
	"weft/internal/xt"
)

func pick[T any](r *rand.Rand, of ...T) T { return of[r.IntN(len(of))] }

// prefixes are those of a small universe, some within others.
var prefixes = map[bool][]netip.Prefix{
	false: {
		netip.MustParsePrefix("172.16.0.0/12"), netip.MustParsePrefix("172.16.28.0/24"), netip.MustParsePrefix("172.17.0.0/16"),
		netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("224.0.0.0/4"),
		netip.MustParsePrefix("172.16.28.7/32"), netip.MustParsePrefix("203.0.113.0/24"),
	},
	true: {
		netip.MustParsePrefix("fd00:16::/32"), netip.MustParsePrefix("fd00:16:0:28::/64"), netip.MustParsePrefix("fd00:17::/32"),
		netip.MustParsePrefix("fd01::/16"), netip.MustParsePrefix("fd01:1::/32"), netip.MustParsePrefix("ff00::/8"),
		netip.MustParsePrefix("fd00:16:0:28::7/128"), netip.MustParsePrefix("2001:db8::/32"),
	},
}

func randomConfig(r *rand.Rand) masq.Config {
	c := masq.Config{Mode: pick(r, masq.None, masq.Outside, masq.Outside, masq.Pods), Forward: r.IntN(2) == 0, KeepPorts: r.IntN(2) == 0}
	families := r.IntN(3)
	if families != 1 {
		c.Network, c.Subnet = prefixes[false][0], prefixes[false][1]
	}
	if families != 0 {
		c.NetworkV6, c.SubnetV6 = prefixes[true][0], prefixes[true][1]
	}
	c.Bridge = pick(r, "", "cni0")
	c.MarkBits = pick[uint32](r, 0, 1, 1<<20, 1<<31)
	for _, v6 := range []bool{false, true} {
		for range r.IntN(3) {
			c.NonMasquerade = append(c.NonMasquerade, pick(r, prefixes[v6][2:]...))
		}
		for range r.IntN(3) {
			c.Underlay = append(c.Underlay, pick(r, prefixes[v6]...))
		}
	}
	slices.SortFunc(c.NonMasquerade, netip.Prefix.Compare)
	c.NonMasquerade = slices.Compact(c.NonMasquerade)
	return c
}

// randomAddr is an address of one of the prefixes, often one at its edge.
func randomAddr(r *rand.Rand, v6 bool) netip.Addr {
	p := pick(r, prefixes[v6]...)
	b := p.Addr().AsSlice()
	if r.IntN(4) > 0 {
		for i := p.Bits(); i < len(b)*8; i++ {
			b[i/8] |= byte(r.IntN(2)) << (7 - i%8)
		}
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

func randomPacket(r *rand.Rand) explain.Packet {
	v6 := r.IntN(2) == 0
	p := explain.Packet{Out: pick(r, "cni0", "flannel.1", "eth0", "cni01"), Mark: pick(r, 0, 0x4000, 1, 1<<20, 1<<31, r.Uint32()), DNATed: r.IntN(2) == 0}
	p.Proto = pick(r, "tcp", "udp", "icmp")
	p.Src, p.Dst = netip.AddrPortFrom(randomAddr(r, v6), 1000), netip.AddrPortFrom(randomAddr(r, v6), 80)
	return p
}

// decision is what rules decide about the source: "masqueraded", "kept" or "left", to others.
func decision(rules explain.Rules, p explain.Packet) string {
	said := "left"
	for _, o := range rules.Eval(explain.Postrouting, p) {
		switch o.Action {
		case explain.Masquerade:
			said = "masqueraded"
		case explain.Keep, explain.Accept:
			said = "kept"
		default:
			return fmt.Sprintf("action %d: %s", o.Action, o.Rule)
		}
	}
	return said
}

// modelled is the decision without any rules: the policy in words.
func modelled(c masq.Config, p explain.Packet) string {
	src, dst, bits := p.Src.Addr(), p.Dst.Addr(), c.MarkBits
	network, subnet := c.Network, c.Subnet
	if src.Is6() {
		network, subnet = c.NetworkV6, c.SubnetV6
	}
	if bits == 0 {
		bits = masq.Mark
	}
	in := func(a netip.Addr, list []netip.Prefix) bool {
		return slices.ContainsFunc(list, func(p netip.Prefix) bool { return p.Contains(a) })
	}
	var underlay []netip.Prefix
	for _, u := range c.Underlay {
		if network.IsValid() && u.Overlaps(network) && u.Bits() >= network.Bits() && !u.Overlaps(subnet) {
			underlay = append(underlay, u)
		}
	}
	switch {
	case !network.IsValid() || c.Mode == masq.None:
		return "left"
	case c.Mode == masq.Pods:
		return modelledPods(c, p, subnet, in(dst, c.NonMasquerade), bits)
	case p.Mark&bits != 0:
		return "left"
	case in(dst, c.NonMasquerade) && network.Contains(src):
		if subnet.Contains(src) && !subnet.Contains(dst) {
			return "kept"
		}
		return "left"
	case in(src, underlay):
		return "left"
	case subnet.Contains(src) && in(dst, underlay):
		return "masqueraded"
	case subnet.Contains(src) && (network.Contains(dst) && !subnet.Contains(dst) || dst.IsMulticast()):
		return "kept"
	case subnet.Contains(dst), !network.Contains(src) && !network.Contains(dst), dst.IsMulticast() && network.Contains(src):
		return "left"
	}
	return "masqueraded"
}

func modelledPods(c masq.Config, p explain.Packet, subnet netip.Prefix, open bool, bits uint32) string {
	src, dst := p.Src.Addr(), p.Dst.Addr()
	switch {
	case !subnet.Contains(src):
		return "left"
	case open && p.Mark&bits == 0 && !subnet.Contains(dst):
		return "kept"
	case open: // left to the proxy that marked it, or within the node
		return "left"
	case c.Bridge != "" && p.Out == c.Bridge, c.Bridge == "" && subnet.Contains(dst):
		return "left"
	}
	return "masqueraded"
}

// TestRenderingsAgree walks both renderings of random configurations with random packets: they decide alike, and as the policy says.
func TestRenderingsAgree(t *testing.T) {
	counts := map[string]int{}
	for seed := range uint64(600) {
		r := rand.New(rand.NewPCG(seed, 8))
		c := randomConfig(r)
		x, n := explain.IPTables{Rules: masq.XT(c)}, explain.NFTables{Table: masq.NFT(c)}
		for range 200 {
			p := randomPacket(r)
			a, b, want := decision(x, p), decision(n, p), modelled(c, p)
			counts[want]++
			if a != want || b != want {
				t.Fatalf("seed %d: %+v\n%s out %s mark 0x%x: iptables %s, nftables %s, the policy %s\n%s%s",
					seed, c, p.Flow, p.Out, p.Mark, a, b, want, x.Rules, n.Table)
			}
		}
	}
	for _, d := range []string{"left", "kept", "masqueraded"} {
		if counts[d] < 2000 {
			t.Errorf("%s: only %d packets", d, counts[d])
		}
	}
}

// TestKernelTakesThem applies random configurations in both renderings: the kernel takes them, and what is read back is the plan.
func TestKernelTakesThem(t *testing.T) {
	netns.Need(t)
	conn := must[*kernelnft.Conn](t)(kernelnft.Open())
	defer conn.Close()
	ctx := context.Background()
	for seed := range uint64(12) {
		c := randomConfig(rand.New(rand.NewPCG(seed, 9)))
		table := nft.Union(map[string]nft.Table{"": masq.NFT(c)})
		if err := conn.Apply(nft.Diff(table, must[*nft.Table](t)(conn.Read(nft.INet, nft.TableName)))); err != nil {
			t.Fatalf("%+v: %v\n%s", c, err, table)
		}
		if left := nft.Diff(table, must[*nft.Table](t)(conn.Read(nft.INet, nft.TableName))); len(left) > 0 {
			t.Fatalf("%+v: kernel and plan differ: %v", c, left)
		}
		var k kernelxt.Kernel
		want := masq.XT(c)
		if err := k.Apply(ctx, xt.Diff(want, must[xt.Ruleset](t)(k.Read(ctx)))); err != nil {
			t.Fatalf("%+v: %v\n%s", c, err, want)
		}
		if left := xt.Diff(want, must[xt.Ruleset](t)(k.Read(ctx))); len(left) > 0 {
			t.Fatalf("%+v: kernel and plan differ: %v", c, left)
		}
	}
	_ = conn.Apply([]nft.Op{{Verb: nft.Del, Kind: nft.KindTable, Family: nft.INet, Table: nft.TableName}})
	var k kernelxt.Kernel
	_ = k.Apply(ctx, xt.Diff(xt.Ruleset{}, must[xt.Ruleset](t)(k.Read(ctx))))
}
