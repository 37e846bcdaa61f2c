package agent

import (
	"encoding/json"
	"fmt"
	"net/netip"

	"weft/internal/api"
	"weft/internal/attach"
	"weft/internal/lease"
	"weft/internal/netstate"
	"weft/internal/overlay"
)

// FactsAnnotation is the node annotation in which an agent publishes what the others can't know of its host, so that anyone
// can plan for any node.
const FactsAnnotation = "weft.dev/facts"

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
	Services       ServiceFacts `json:"services,omitzero"`

	Network   netip.Prefix    `json:"network,omitzero"`
	NetworkV6 netip.Prefix    `json:"networkV6,omitzero"`
	Backend   string          `json:"backend"`
	Options   overlay.Options `json:"options"`
	Other     *otherBackend   `json:"other,omitempty"` // of a change under way

	earlier map[string]overlay.Options // of backends that were in force before, by name
	turning bool                       // between sealed and not: paths are encrypted, the seal is not in force

	Etcd       []string `json:"etcd,omitempty"` // endpoints that hold the leases; none: the nodes' annotations do
	EtcdPrefix string   `json:"etcdPrefix,omitempty"`
}

// JSON is the annotation's value.
func (f Facts) JSON() (string, error) {
	b, err := json.Marshal(f)
	if err != nil {
		return "", fmt.Errorf("encode facts: %w", err)
	}
	return string(b), nil
}

// ReadFacts reads a node's annotation; ok is false when the node has none (it runs no agent of ours).
func ReadFacts(n api.Node) (f Facts, ok bool, err error) {
	text, ok := n.Annotations[FactsAnnotation]
	if !ok {
		return Facts{}, false, nil
	}
	if err := json.Unmarshal([]byte(text), &f); err != nil {
		return Facts{}, false, fmt.Errorf("node %s: annotation %s: %w", n.Name, FactsAnnotation, err)
	}
	if f.Node != n.Name {
		return Facts{}, false, fmt.Errorf("node %s: annotation %s is of node %q", n.Name, FactsAnnotation, f.Node)
	}
	return f, true, nil
}

func (f Facts) addr(v6 bool) netip.Addr {
	for _, a := range f.Addrs {
		if a.Is6() == v6 {
			return a
		}
	}
	return netip.Addr{}
}

// public is the address of the family that the node publishes.
func (f Facts) public(v6 bool) netip.Addr {
	p := f.PublicIP
	if v6 {
		p = f.PublicIPv6
	}
	if p.IsValid() {
		return p
	}
	return f.addr(v6)
}

// self is the overlay's view of the node.
func (f Facts) self(own api.Lease) overlay.Self {
	self := overlay.Self{
		Lease: own, Network: f.Network, NetworkV6: f.NetworkV6, Dev: f.Dev, MTU: f.MTU,
		Addr: f.addr(false), AddrV6: f.addr(true), Connected: f.Connected, Paths: f.PathMTU, Options: f.Options,
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

// attachConfig is the pods' side.
func (f Facts) attachConfig(own api.Lease, mtu int) attach.Config {
	return attach.Config{
		Mode: f.Attach, Bridge: f.Bridge, BridgeMAC: f.BridgeMAC, Subnet: own.Subnet, SubnetV6: own.SubnetV6, MTU: mtu,
		Network: f.Network, NetworkV6: f.NetworkV6, BridgeNetfilter: f.BridgeNetfilter, IPv6: f.IPv6,
	}
}

// takeNetwork puts the network configuration's part into the facts.
func (f *Facts) takeNetwork(c lease.Config) {
	f.Network, f.NetworkV6 = c.V4.Network, c.V6.Network
	f.Backend = c.Backend.Type
	f.Options = optionsOf(c.Backend)
	f.Other = otherOf(c)
}

// underlayState is what the host has without us, as far as a packet's way depends on it.
func (f Facts) underlayState() netstate.State {
	s := netstate.New()
	for _, p := range f.Connected {
		if a := f.addr(p.Addr().Is6()); a.IsValid() && p.Contains(a) {
			s.Add(netstate.Addr{Dev: f.Dev, Prefix: netip.PrefixFrom(a, p.Bits())})
		}
	}
	if f.Gateway.IsValid() {
		all := netip.PrefixFrom(netip.IPv4Unspecified(), 0)
		if f.Gateway.Is6() {
			all = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
		}
		s.Add(netstate.Route{Dst: all, Via: f.Gateway, Dev: f.Dev, Src: f.addr(f.Gateway.Is6())})
	}
	return s
}
