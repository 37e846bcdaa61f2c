// Package facts is what the plan of a node depends on besides the objects of the cluster: the underlay of its host, the settings of its
// agent and the configuration of the network. An agent publishes them, so that anyone can plan for any node.
//
// Floor 4, programs.
package facts

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"

	"weft/internal/api"
	"weft/internal/attach"
	"weft/internal/kernel/tun/wg"
	"weft/internal/lease"
	"weft/internal/netstate"
	"weft/internal/overlay"
)

// Annotation is the node annotation in which an agent publishes what the others can't know of its host, so that anyone
// can plan for any node.
const Annotation = "weft.dev/facts"

// Facts is what a node's plan depends on besides the cluster's objects: the host's underlay and the agent's settings.
type Facts struct {
	Node      string         `json:"node"`
	Dev       string         `json:"dev"`
	MTU       int            `json:"mtu"`
	Addrs     []netip.Addr   `json:"addrs"`
	Connected []netip.Prefix `json:"connected"`
	Gateway   netip.Addr     `json:"gateway,omitzero"`
	// PublicIP and PublicIPv6 are the addresses the others reach the node by, where they are not the interface's first ones.
	PublicIP   netip.Addr `json:"publicIP,omitzero"`
	PublicIPv6 netip.Addr `json:"publicIPv6,omitzero"`

	// PathMTU holds the MTUs in bytes of the paths to other nodes' public addresses that are narrower than MTU.
	PathMTU map[netip.Addr]int `json:"pathMTU,omitempty"`

	Attach          attach.Mode `json:"attach"`
	Bridge          string      `json:"bridge,omitempty"`
	BridgeMAC       string      `json:"bridgeMAC,omitempty"` // of a bridge that was there before: pods know it
	BridgeNetfilter bool        `json:"bridgeNetfilter,omitempty"`
	EdgeCheck       bool        `json:"edgeCheck,omitempty"`
	IPv6            bool        `json:"ipv6,omitempty"`

	ProxyMode      ProxyMode    `json:"proxyMode"`
	IPMasq         bool         `json:"ipMasq"`
	MasqueradePods bool         `json:"masqueradePods,omitempty"`
	ServiceRange   netip.Prefix `json:"serviceRange,omitzero"`
	Masq           Masquerading `json:"masq,omitzero"`
	Services       Services     `json:"services,omitzero"`

	Network   netip.Prefix    `json:"network,omitzero"`
	NetworkV6 netip.Prefix    `json:"networkV6,omitzero"`
	Backend   string          `json:"backend"`
	Options   overlay.Options `json:"options"`
	Other     *OtherBackend   `json:"other,omitempty"` // of a change under way

	Earlier map[string]overlay.Options `json:"-"` // of backends that were in force before, by name
	Turning bool                       `json:"-"` // between sealed and not: paths are encrypted, the seal is not in force

	Etcd       []string `json:"etcd,omitempty"` // endpoints that hold the leases; none: the nodes' annotations do
	EtcdPrefix string   `json:"etcdPrefix,omitempty"`
	// AnnotationPrefix is what the keys of the nodes' annotations begin with, where that is not flannel's default.
	AnnotationPrefix string `json:"annotationPrefix,omitempty"`
}

// JSON is the annotation's value.
func (f Facts) JSON() (string, error) {
	b, err := json.Marshal(f)
	if err != nil {
		return "", fmt.Errorf("encode facts: %w", err)
	}
	return string(b), nil
}

// Read reads a node's annotation; ok is false when the node has none (it runs no agent of ours).
func Read(n api.Node) (f Facts, ok bool, err error) {
	text, ok := n.Annotations[Annotation]
	if !ok {
		return Facts{}, false, nil
	}
	if err := json.Unmarshal([]byte(text), &f); err != nil {
		return Facts{}, false, fmt.Errorf("node %s: annotation %s: %w", n.Name, Annotation, err)
	}
	if f.Node != n.Name {
		return Facts{}, false, fmt.Errorf("node %s: annotation %s is of node %q", n.Name, Annotation, f.Node)
	}
	return f, true, nil
}

// Addr is the first address of the family that the underlay interface has, the zero Addr without one.
func (f Facts) Addr(v6 bool) netip.Addr {
	for _, a := range f.Addrs {
		if a.Is6() == v6 {
			return a
		}
	}
	return netip.Addr{}
}

// Public is the address of the family that the node publishes.
func (f Facts) Public(v6 bool) netip.Addr {
	p := f.PublicIP
	if v6 {
		p = f.PublicIPv6
	}
	if p.IsValid() {
		return p
	}
	return f.Addr(v6)
}

// Self is the overlay's view of the node.
func (f Facts) Self(own api.Lease) overlay.Self {
	self := overlay.Self{
		Lease: own, Network: f.Network, NetworkV6: f.NetworkV6, Dev: f.Dev, MTU: f.MTU,
		Addr: f.Addr(false), AddrV6: f.Addr(true), Addrs: f.Addrs, Connected: f.Connected, Paths: f.PathMTU, Options: f.Options,
	}
	if f.Backend == lease.L2 {
		// Pods of one Ethernet segment have no route on the way, so the narrowest path is everybody's.
		for _, mtu := range f.PathMTU {
			self.MTU = min(self.MTU, mtu)
			if self.Options.MTU > 0 {
				self.Options.MTU = min(self.Options.MTU, mtu)
			}
		}
	}
	return self
}

// AttachConfig is the pods' side.
func (f Facts) AttachConfig(own api.Lease, mtu int) attach.Config {
	return attach.Config{
		Mode: f.Attach, Bridge: f.Bridge, BridgeMAC: f.BridgeMAC, Subnet: own.Subnet, SubnetV6: own.SubnetV6, MTU: mtu,
		Network: f.Network, NetworkV6: f.NetworkV6, BridgeNetfilter: f.BridgeNetfilter, IPv6: f.IPv6,
	}
}

// TakeNetwork puts the network configuration's part into the facts.
func (f *Facts) TakeNetwork(c lease.Config) {
	f.Network, f.NetworkV6 = c.V4.Network, c.V6.Network
	f.Backend = c.Backend.Type
	f.Options = OptionsOf(c.Backend)
	f.Other = OtherOf(c)
}

// UnderlayState is what the host has without us, as far as a packet's way depends on it.
func (f Facts) UnderlayState() netstate.State {
	s := netstate.New()
	for _, p := range f.Connected {
		if a := f.Addr(p.Addr().Is6()); a.IsValid() && p.Contains(a) {
			s.Add(netstate.Addr{Dev: f.Dev, Prefix: netip.PrefixFrom(a, p.Bits())})
		}
	}
	if f.Gateway.IsValid() {
		all := netip.PrefixFrom(netip.IPv4Unspecified(), 0)
		if f.Gateway.Is6() {
			all = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
		}
		s.Add(netstate.Route{Dst: all, Via: f.Gateway, Dev: f.Dev, Src: f.Addr(f.Gateway.Is6())})
	}
	return s
}

// OtherBackend is the second backend of a network that changes from one to another: hosts receive by both and send by the one in force.
type OtherBackend struct {
	Backend string          `json:"backend"`
	Options overlay.Options `json:"options"`
	Next    bool            `json:"next,omitempty"` // it is prepared; else it is left
	Change  string          `json:"change,omitempty"`
	// Left is set when the change is over: no lease names the backend any more, and what is under way by it is still taken. It holds what the
	// leases said of it, by their first subnet.
	Left map[netip.Prefix]lease.Kind `json:"-"`
}

// OtherOf is the second backend of a network configuration, nil when it names none.
func OtherOf(c lease.Config) *OtherBackend {
	b := cmp.Or(c.Next, c.Previous)
	if b.Type == "" {
		return nil
	}
	return &OtherBackend{Backend: b.Type, Options: OptionsOf(b), Next: c.Next.Type != "", Change: cmp.Or(c.Change, "by-hand")}
}

// OptionsOf are a backend's options as its planner takes them.
func OptionsOf(b lease.Backend) overlay.Options {
	o := overlay.Options{VNI: b.VNI, Port: b.Port, MTU: b.MTU, GBP: b.GBP, Learning: b.Learning, DirectRouting: b.DirectRouting}
	if b.Type == lease.WireGuard {
		o.ListenPort, o.ListenPortV6, o.Keepalive, o.Mode = b.ListenPort, b.ListenPortV6, b.PersistentKeepalive, b.Mode
		o.Userspace = !wg.KernelDriver()
	}
	return o
}

// Sealed reports whether the node sends only encrypted: while its configuration in force says so, whatever it prepares or leaves.
func (f Facts) Sealed() bool { return f.Backend == lease.WireGuard }

// Holds reports whether the address is one of the node's, or the one it publishes.
func (f Facts) Holds(a netip.Addr) bool {
	return a.IsValid() && (slices.Contains(f.Addrs, a) || a == f.PublicIP || a == f.PublicIPv6)
}
