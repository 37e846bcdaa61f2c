package sources_test

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"

	"weft/internal/agent/facts"
	"weft/internal/agent/ways"
	"weft/internal/agent/world"
	"weft/internal/api"
	"weft/internal/attach"
	"weft/internal/explain"
	"weft/internal/kernel"
	kernelnft "weft/internal/kernel/nft"
	"weft/internal/kernel/probe"
	"weft/internal/kernel/tun/datagram"
	"weft/internal/kernel/tun/wg"
	kernelxt "weft/internal/kernel/xt"
	"weft/internal/masq"
	"weft/internal/netstate"
	"weft/internal/nft"
	"weft/internal/overlay"
	"weft/internal/overlay/udp"
	"weft/internal/overlay/wireguard"
	"weft/internal/xt"
)

// config is one combination of settings.
type config struct {
	attach  attach.Mode
	backend string
	proxy   facts.ProxyMode
	mode    masq.Mode
}

func (c config) String() string {
	return name(c.attach, " ", c.backend, " ", c.proxy, " ", c.mode)
}

var pods = []api.Pod{pod("a", "n1"), pod("b", "n1"), pod("c", "n2")}

func pod(host, node string) api.Pod {
	a := own[host]
	return api.Pod{Namespace: "default", Name: host, UID: "uid-" + host, Node: node, IPs: a[:], Phase: "Running"}
}

// node is a host that runs what an agent would.
type node struct {
	name   string
	key    wg.Key
	kernel *kernel.Netns
	table  *kernelnft.Conn
	udp    *datagram.Engine
	wg     *wg.Engine
}

func (l *lab) newNode(t *testing.T, host string) *node {
	t.Helper()
	n := &node{name: host, key: must[wg.Key](t)(wg.LoadKey(filepath.Join(t.TempDir(), "key"), ""))}
	n.kernel = must[*kernel.Netns](t)(kernel.Open(l.ns[host].Path()))
	log := slog.New(slog.DiscardHandler)
	err := l.ns[host].Do(func() (err error) {
		n.table, err = kernelnft.Open()
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	n.udp = datagram.New(datagram.Options{Device: udp.Device, Log: log})
	n.wg = wg.New(wg.Options{Devices: []string{wireguard.Device, wireguard.DeviceV6}, Key: n.key, Log: log})
	t.Cleanup(func() { _, _, _, _ = n.udp.Close(), n.wg.Close(), n.table.Close(), n.kernel.Close() })
	return n
}

func (n *node) number() string { return strings.TrimPrefix(n.name, "n") }

func (n *node) lease(backend string, o overlay.Options) api.Lease {
	i := n.number()
	l := api.Lease{
		Node: n.name, BackendType: backend, VNI: 1, PublicIP: own[n.name][0], PublicIPv6: own[n.name][1],
		Subnet: netip.MustParsePrefix("172.20." + i + ".0/24"), SubnetV6: netip.MustParsePrefix("fd00:20:0:" + i + "::/64"),
		VTEPMAC: "02:00:00:00:04:0" + i, VTEPMACv6: "02:00:00:00:06:0" + i,
	}
	if backend == wireguard.Name {
		l.WGKey = n.key.PublicKey().String()
		l.WGPort, l.WGPortV6 = wireguard.Ports(o)
	}
	return l
}

// facts are what the node's agent would publish.
func (n *node) facts(c config) facts.Facts {
	a := own[n.name]
	f := facts.Facts{
		Node: n.name, Dev: "eth0", MTU: 1500, Addrs: a[:], Gateway: ip("192.168.50.1"),
		Connected: []netip.Prefix{netip.MustParsePrefix("192.168.50.0/24"), netip.MustParsePrefix("fd00:50::/64")},
		Attach:    c.attach, BridgeNetfilter: probe.Kernel().BridgeNetfilter, IPv6: true,
		ProxyMode: c.proxy, IPMasq: c.mode == masq.Outside, MasqueradePods: c.mode == masq.Pods,
		ServiceRange: netip.MustParsePrefix("10.254.0.0/16"),
		Network:      netip.MustParsePrefix("172.20.0.0/16"), NetworkV6: netip.MustParsePrefix("fd00:20::/32"),
		Backend: c.backend, Options: overlay.Options{VNI: 1, Userspace: c.backend == wireguard.Name},
	}
	if c.attach != attach.Routed {
		f.Bridge = "cni0"
	}
	for _, p := range []string{"10.99.0.0/16", "fd00:99::/64"} {
		f.Masq.NonMasquerade = append(f.Masq.NonMasquerade, netip.MustParsePrefix(p))
	}
	return f
}

// world plans all nodes, and adds what is not theirs to plan.
func (l *lab) world(t *testing.T, c config, nodes []*node) explain.World {
	t.Helper()
	snap := api.Snapshot{Pods: pods, Services: services()}
	var leases []api.Lease
	for _, n := range nodes {
		f := n.facts(c)
		text := must[string](t)(f.JSON())
		var places [][]netip.Addr
		for _, p := range pods {
			if p.Node == n.name {
				places = append(places, p.IPs)
			}
		}
		where := must[[]byte](t)(json.Marshal(places))
		a := own[n.name]
		snap.Nodes = append(snap.Nodes, api.Node{
			Name: n.name, Addresses: a[:], Annotations: map[string]string{facts.Annotation: text, ways.PodsAnnotation: string(where)},
		})
		leases = append(leases, n.lease(c.backend, f.Options))
	}
	w := must[explain.World](t)(world.Plan(snap, leases))
	for _, h := range w.Hosts {
		if h.Pod {
			continue
		}
		h.Underlay.Add(netstate.Route{Dst: everywhere[1], Via: ip("fd00:50::1"), Dev: "eth0"})
		for i, p := range behindN1 {
			if h.Name == "n1" {
				h.Underlay.Add(netstate.Addr{Dev: "behind", Prefix: netip.PrefixFrom(p.Addr().Next(), p.Bits())})
			} else {
				h.Underlay.Add(netstate.Route{Dst: p, Via: own["n1"][i], Dev: "eth0"})
			}
		}
	}
	w.Hosts = append(w.Hosts, foreigners()...)
	return w
}

var everywhere = [2]netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}

// foreigners are the hosts outside as explain knows them.
func foreigners() []*explain.Host {
	out := &explain.Host{Name: "outside", State: netstate.New(), Underlay: netstate.New()}
	for _, p := range []string{"203.0.113.10/32", "10.99.0.10/32", "169.254.169.254/32", "2001:db8::10/128", "fd00:99::10/128"} {
		out.Underlay.Add(netstate.Addr{Dev: "lo", Prefix: netip.MustParsePrefix(p)})
	}
	for _, p := range []string{"192.168.50.1/24", "fd00:50::1/64"} {
		out.Underlay.Add(netstate.Addr{Dev: "eth0", Prefix: netip.MustParsePrefix(p)})
	}
	for dst, via := range map[string]string{
		"172.20.1.0/24": "192.168.50.11", "172.20.2.0/24": "192.168.50.12", "10.254.0.0/16": "192.168.50.11",
		"fd00:20:0:1::/64": "fd00:50::11", "fd00:20:0:2::/64": "fd00:50::12", "fd00:fe::/112": "fd00:50::11",
	} {
		out.Underlay.Add(netstate.Route{Dst: netip.MustParsePrefix(dst), Via: ip(via), Dev: "eth0"})
	}
	far := &explain.Host{Name: "behind", State: netstate.New(), Underlay: netstate.New()}
	for i, p := range behindN1 {
		far.Underlay.Add(netstate.Addr{Dev: "eth0", Prefix: netip.PrefixFrom(own["behind"][i], p.Bits())})
		far.Underlay.Add(netstate.Route{Dst: everywhere[i], Via: p.Addr().Next(), Dev: "eth0"})
	}
	return []*explain.Host{out, far}
}

// applyState brings the node and its pods to the planned state.
func (l *lab) applyState(t *testing.T, n *node, w explain.World) {
	t.Helper()
	want := netstate.New()
	for _, h := range w.Hosts {
		if h.Name == n.name {
			for _, o := range h.State.All() {
				want.Add(l.real(o))
			}
		}
	}
	engines := func(prepare bool) error {
		return l.ns[n.name].Do(func() error {
			if prepare {
				if err := n.udp.Prepare(want); err != nil {
					return err
				}
				if err := n.wg.Prepare(want); err != nil {
					return err
				}
			}
			if err := n.udp.Apply(want); err != nil {
				return err
			}
			return n.wg.Apply(want)
		})
	}
	if err := engines(true); err != nil {
		t.Fatal(err)
	}
	converge(t, n.kernel, want)
	if err := engines(false); err != nil {
		t.Fatal(err)
	}
	for _, p := range pods {
		if p.Node != n.name {
			continue
		}
		k := must[*kernel.Netns](t)(kernel.Open(l.ns[p.Name].Path()))
		for _, h := range w.Hosts {
			if h.Name == "default/"+p.Name {
				converge(t, k, h.State)
			}
		}
		if err := k.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// real puts the path of a pod's network namespace in the place of the one in the plan.
func (l *lab) real(o netstate.Object) netstate.Object {
	link, ok := o.(netstate.Link)
	if uid, is := strings.CutPrefix(link.Peer.Netns, "/pod/uid-"); ok && is {
		link.Peer.Netns = l.ns[uid].Path()
		return link
	}
	return o
}

func converge(t *testing.T, k *kernel.Netns, want netstate.State) {
	t.Helper()
	ctx := context.Background()
	want = want.Select(func(o netstate.Object) bool { return kernel.Applies(o.Kind()) })
	for range 2 {
		have := must[netstate.State](t)(k.Read(ctx, want))
		if err := k.Apply(ctx, netstate.Diff(want, have)); err != nil {
			t.Fatal(err)
		}
	}
}

// applyRules brings the node's packet filter to the plan and reads it back: plan and kernel must agree.
func (l *lab) applyRules(t *testing.T, n *node, w explain.World) {
	t.Helper()
	var filter xt.Ruleset
	var table *nft.Table
	for _, h := range w.Hosts {
		if h.Name != n.name {
			continue
		}
		for _, r := range h.Rules {
			switch r := r.(type) {
			case explain.IPTables:
				filter = r.Rules
			case explain.NFTables:
				table = &r.Table
			}
		}
	}
	have := must[*nft.Table](t)(n.table.Read(nft.INet, nft.TableName))
	switch {
	case table != nil:
		if err := n.table.Apply(nft.Diff(*table, have)); err != nil {
			t.Fatal(err)
		}
	case have != nil:
		if err := n.table.Apply([]nft.Op{{Verb: nft.Del, Kind: nft.KindTable, Family: nft.INet, Table: nft.TableName}}); err != nil {
			t.Fatal(err)
		}
	}
	err := l.ns[n.name].Do(func() error {
		var k kernelxt.Kernel
		have, err := k.Read(context.Background())
		if err != nil {
			return err
		}
		return k.Apply(context.Background(), xt.Diff(filter, have))
	})
	if err != nil {
		t.Fatal(err)
	}
}
