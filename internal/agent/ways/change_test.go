package ways

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"weft/internal/agent/agenttest"
	"weft/internal/agent/facts"
	"weft/internal/api"
	"weft/internal/lease"
	"weft/internal/netstate"
	"weft/internal/overlay"
)

// changing is a network of nodes that read one log of configurations and leases, each at its own pace.
type changing struct {
	t     *testing.T
	log   []entry
	nodes []*changer
	trace []string
}

// entry is a write to the store: a configuration, or a node's lease.
type entry struct {
	config string
	node   int
	lease  api.Lease
}

// changer is a node: how much of the log it has read, and what its kernel has.
type changer struct {
	read   int
	facts  facts.Facts
	kernel netstate.State
	told   api.Lease
	sealed bool
}

func (c *changing) lease(i int, cfg lease.Config) api.Lease {
	l := api.Lease{Node: fmt.Sprint(i), PublicIP: netip.AddrFrom4([4]byte{172, 17, 42, byte(31 + i)})}
	kind := func(b lease.Backend) lease.Kind {
		k := lease.Kind{Type: b.Type}
		switch b.Type {
		case lease.VXLAN:
			k.VNI, k.Port, k.VTEPMAC = b.VNI, PortOf(b.Type, facts.OptionsOf(b)), fmt.Sprintf("02:00:00:00:%02x:%02x", b.VNI, i)
		case lease.WireGuard:
			k.WGKey, k.Port = strings.Repeat(fmt.Sprint(i), 42)+"A=", b.ListenPort
		}
		return k
	}
	l = kind(cfg.Backend).Of(l)
	l.Subnet = netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 5, byte(i + 1), 0}), 24)
	if o := facts.OtherOf(cfg); o != nil {
		b := cfg.Next
		if !o.Next {
			b = cfg.Previous
		}
		l = lease.Announce(l, kind(b))
	}
	return l
}

// view is the configuration and the leases a node has read.
func (c *changing) view(upTo int) (lease.Config, []api.Lease) {
	var cfg lease.Config
	last := map[int]api.Lease{}
	for _, e := range c.log[:upTo] {
		if e.config != "" {
			var err error
			if cfg, _, err = lease.ParseConfig([]byte(e.config)); err != nil {
				c.t.Fatal(err)
			}
			continue
		}
		last[e.node] = e.lease
	}
	var all []api.Lease
	for i := range c.nodes {
		if l, ok := last[i]; ok {
			all = append(all, l)
		}
	}
	return cfg, all
}

// step lets a node read some more and do what an agent does: plan, apply, announce.
func (c *changing) step(i, more int) {
	n := c.nodes[i]
	n.read = min(n.read+more, len(c.log))
	cfg, all := c.view(n.read)
	own := c.lease(i, cfg)
	f := facts.Facts{
		Node: own.Node, Dev: "eth0", MTU: 1500, Addrs: []netip.Addr{own.PublicIP}, Connected: []netip.Prefix{netip.MustParsePrefix("172.17.0.0/16")},
		Earlier: n.facts.Earlier,
	}
	f.TakeNetwork(cfg)
	if n.facts.Backend != "" && n.facts.Backend != f.Backend {
		f.Earlier = map[string]overlay.Options{n.facts.Backend: n.facts.Options}
	}
	used, err := Of(f, own, all)
	if err != nil {
		c.t.Fatal(err)
	}
	n.facts, n.sealed = f, f.Sealed()
	n.kernel = netstate.Union(planWays(f, used, all)...)
	peers, _ := overlay.Peers(used[0].Self, all)
	if told := Announced(f, own, peers, false); told != n.told {
		n.told = told
		c.log = append(c.log, entry{node: i, lease: told})
	}
	c.trace = append(c.trace, fmt.Sprintf("node %d read %d of %d: %s, other %+v; tells %s %s", i, n.read, len(c.log), f.Backend, f.Other,
		n.told.BackendType, n.told.Also))
}

// path says how a node's packets to another one go, and whether the other one takes them.
func (c *changing) path(a, b *changer, from, to api.Lease) (dev string, err error) {
	var best netstate.Route
	for _, r := range netstate.Of[netstate.Route](a.kernel) {
		if r.Dst.Contains(to.Subnet.Addr()) && (best.Dev == "" || r.Dst.Bits() > best.Dst.Bits()) {
			best = r
		}
	}
	tunnel := func(n *changer, to netip.Prefix) (netstate.Tunnel, bool) {
		for _, t := range netstate.Of[netstate.Tunnel](n.kernel) {
			if t.Dev == best.Dev && t.Subnet == to {
				return t, true
			}
		}
		return netstate.Tunnel{}, false
	}
	switch {
	case best.Dev == "":
		return "", fmt.Errorf("no route")
	case best.Dev == "eth0":
		return best.Dev, nil
	case strings.HasPrefix(best.Dev, "flannel.") || strings.HasPrefix(best.Dev, "weft4."):
		return best.Dev, vxlanPath(a, b, best, to)
	}
	out, ok := tunnel(a, to.Subnet)
	if !ok {
		return best.Dev, fmt.Errorf("no tunnel by %s", best)
	}
	return best.Dev, taken(b, out, from)
}

// taken reports whether a node takes what comes to the remote end of a tunnel. One that keeps keys for each device must know the sender there
// by the device it sends from.
func taken(b *changer, out netstate.Tunnel, from api.Lease) error {
	var at []netstate.Tunnel
	for _, t := range netstate.Of[netstate.Tunnel](b.kernel) {
		if t.Subnet == from.Subnet && t.Local.Port() == out.Remote.Port() && (t.PeerKey == "") == (out.PeerKey == "") {
			at = append(at, t)
		}
	}
	if len(at) != 1 || at[0].Remote.Port() != out.Local.Port() {
		return fmt.Errorf("%s: not taken: %v", out, at)
	}
	return nil
}

func vxlanPath(a, b *changer, r netstate.Route, to api.Lease) error {
	o, _ := a.kernel.Get(netstate.ID{Kind: netstate.KindLink, Key: r.Dev})
	out, _ := o.(netstate.Link)
	neighs := netstate.Of[netstate.Neigh](a.kernel)
	i := slices.IndexFunc(neighs, func(n netstate.Neigh) bool { return n.Dev == r.Dev && n.IP == r.Via })
	if i < 0 {
		return fmt.Errorf("no neighbour of %s", r)
	}
	for _, in := range netstate.Of[netstate.Link](b.kernel) {
		if in.VXLAN.VNI == out.VXLAN.VNI && in.VXLAN.Port == out.VXLAN.Port && in.Type == netstate.TypeVXLAN {
			if in.MAC != "" && in.MAC != neighs[i].MAC {
				return fmt.Errorf("frames for %s come to %s", neighs[i].MAC, in.MAC)
			}
			return nil
		}
	}
	return fmt.Errorf("VNI %d, port %d: no such device", out.VXLAN.VNI, out.VXLAN.Port)
}

// check holds after every step: each pair of nodes has a path both ways, and a node whose configuration in force is encrypted has no other.
func (c *changing) check() {
	c.t.Helper()
	for i, a := range c.nodes {
		for j, b := range c.nodes {
			if i == j {
				continue
			}
			dev, err := c.path(a, b, a.told, b.told)
			if err == nil && a.sealed && dev != "flannel-wg" && dev != "weft-wg" {
				err = fmt.Errorf("in clear by %s", dev)
			}
			if err != nil {
				for _, l := range c.trace[max(0, len(c.trace)-12):] {
					c.t.Log(l)
				}
				c.t.Fatalf("node %d to node %d: %v\n%s\nto\n%s", i, j, err, a.kernel, b.kernel)
			}
		}
	}
}

// all reports whether what holds in the store holds of every lease in it.
func (c *changing) all(holds func(api.Lease) bool) bool {
	_, leases := c.view(len(c.log))
	return !slices.ContainsFunc(leases, func(l api.Lease) bool { return !holds(l) })
}

// wander lets nodes read on, in any order and by any amount, until done.
func (c *changing) wander(r *rand.Rand, done func() bool) {
	for steps := 0; !done(); steps++ {
		if steps > 2000 {
			for _, l := range c.trace[max(0, len(c.trace)-12):] {
				c.t.Log(l)
			}
			c.t.Fatal("never done")
		}
		c.step(r.IntN(len(c.nodes)), 1+r.IntN(4))
		c.check()
	}
}

// TestChangeKeepsEveryPath changes the backend in two phases over and over while the nodes read configurations and leases late, some of
// them many changes late, in random orders.
func TestChangeKeepsEveryPath(t *testing.T) {
	wireguards := []string{
		`{"Type":"wireguard"}`, `{"Type":"wireguard","ListenPort":7000}`, `{"Type":"wireguard","ListenPort":51821,"Mode":"auto"}`,
	}
	changeOften(t, 2, wireguards)
	changeOften(t, 10, append(wireguards,
		`{"Type":"vxlan"}`, `{"Type":"vxlan","Port":4789}`, `{"Type":"vxlan","VNI":2}`, `{"Type":"host-gw"}`,
		`{"Type":"udp"}`, `{"Type":"vxlan","DirectRouting":true}`,
	))
}

func changeOften(t *testing.T, seeds uint64, backends []string) {
	t.Helper()
	conf := func(b string) string { return `{"Network":"10.5.0.0/16","Backend":` + b + `}` }
	for seed := range seeds {
		r := rand.New(rand.NewPCG(seed, 7))
		c := &changing{t: t, nodes: []*changer{{}, {}, {}, {}}}
		now := conf(backends[r.IntN(len(backends))])
		c.log = append(c.log, entry{config: now})
		for range 4 {
			for i := range c.nodes {
				c.step(i, len(c.log)+9)
			}
		}
		c.check()
		for n := range 6 {
			then := conf(backends[r.IntN(len(backends))])
			from, _, _ := lease.ParseConfig([]byte(now))
			to, _, _ := lease.ParseConfig([]byte(then))
			if lease.SameKind(from.Backend, to.Backend) {
				continue
			}
			change := fmt.Sprintf("c%d", n)
			put := func(text []byte, err error) {
				if err != nil {
					t.Fatal(err)
				}
				c.trace = append(c.trace, "put "+string(text))
				c.log = append(c.log, entry{config: string(text)})
			}
			put(lease.Preparing([]byte(now), []byte(then), change))
			c.wander(r, func() bool { return c.all(func(l api.Lease) bool { return lease.Receives(l, to.Backend, change) }) })
			if r.IntN(4) > 0 {
				put(lease.Leaving([]byte(then), []byte(now), change))
				c.wander(r, func() bool { return c.all(func(l api.Lease) bool { return lease.Sends(l, to.Backend, change) }) })
				now = then
			} // else the operator goes back
			put([]byte(now), nil)
			if r.IntN(2) > 0 {
				c.wander(r, func() bool { return r.IntN(9) == 0 })
			}
		}
	}
}

// TestSealedNodeSendsNothingInClear: a peer that can't receive encrypted packets gets none at all, whatever else both could do.
func TestSealedNodeSendsNothingInClear(t *testing.T) {
	f := agenttest.Walkthrough(facts.NFTables)
	f.Backend, f.Other = lease.WireGuard, &facts.OtherBackend{Backend: lease.VXLAN, Options: overlay.Options{VNI: 1}, Change: "x"}
	own := agenttest.Lease("kube-node1", "172.16.28.0/24", "172.17.42.31", lease.WireGuard, 0, "")
	own = lease.Announce(own, lease.Kind{Type: lease.VXLAN, VNI: 1, Port: 8472, VTEPMAC: "02:00:00:00:00:01"})
	for _, peer := range []api.Lease{
		agenttest.Lease("kube-node2", "172.16.78.0/24", "172.17.42.32", lease.VXLAN, 1, "02:00:00:00:00:02"),
		agenttest.Lease("kube-node2", "172.16.78.0/24", "172.17.42.32", lease.HostGW, 0, ""),
	} {
		plan := planOf(t, f, own, peer)
		if !strings.Contains(plan, "dev flannel.1") && !strings.Contains(plan, "link flannel.1") {
			t.Errorf("nothing receives by the backend that is left:\n%s", plan)
		}
		if strings.Contains(plan, "route 172.16.78.0/24") {
			t.Errorf("a path in clear:\n%s", plan)
		}
	}
}
