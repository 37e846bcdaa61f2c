package topology

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
)

var (
	label    = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)
	ifname   = regexp.MustCompile(`^[a-zA-Z0-9][-_.a-zA-Z0-9]{0,14}$`)
	backends = []string{"vxlan", "host-gw", "udp", "wireguard", "l2"}
	proxies  = []string{"userspace", "nftables", "iptables"}
)

// Validate checks a topology in which every field is set.
func (t Topology) Validate() error {
	for _, check := range []func() error{t.checkUnderlay, t.checkHosts, t.checkCluster, t.checkSubnets} {
		if err := check(); err != nil {
			return fmt.Errorf("topology: %w", err)
		}
	}
	return nil
}

func (t Topology) checkNodes() error {
	if t.Nodes < 0 || t.Nodes > maxNodes {
		return fmt.Errorf("nodes: %d: want 1 to %d", t.Nodes, maxNodes)
	}
	if t.Nodes != 0 && len(t.Hosts) > 0 {
		return fmt.Errorf("nodes: %d: hosts are listed too: give one of the two", t.Nodes)
	}
	return nil
}

func (t Topology) checkUnderlay() error {
	u := t.Underlay
	if err := checkNetwork("underlay.subnet", u.Subnet, 8, 29); err != nil {
		return err
	}
	if u.MTU < 576 || u.MTU > 65521 {
		return fmt.Errorf("underlay.mtu: %d: want 576 to 65521", u.MTU)
	}
	return checkHostAddr("underlay.gateway", u.Gateway, u.Subnet)
}

func (t Topology) checkHosts() error {
	if len(t.Hosts) == 0 || len(t.Hosts) > maxNodes+1 {
		return fmt.Errorf("hosts: %d of them: want 1 to %d", len(t.Hosts), maxNodes+1)
	}
	names, addrs := map[string]bool{}, map[netip.Addr]string{t.Underlay.Gateway: "underlay.gateway"}
	masters := 0
	for i, h := range t.Hosts {
		at := fmt.Sprintf("hosts[%d].", i)
		if err := h.check(at, t.Underlay.Subnet); err != nil {
			return err
		}
		if names[h.Name] {
			return fmt.Errorf("%sname: %q: taken by another host: names differ", at, h.Name)
		}
		names[h.Name] = true
		if other := addrs[h.Address]; other != "" {
			return fmt.Errorf("%saddress: %s: taken by %s: addresses differ", at, h.Address, other)
		}
		addrs[h.Address] = h.Name
		if h.Role == Master {
			masters++
		}
	}
	if nodes := len(t.With(Node)); masters > 1 || nodes > 0 && masters == 0 {
		return fmt.Errorf("hosts: %d with role master and %d with role node: want one master", masters, nodes)
	}
	return nil
}

// check looks at one host alone.
func (h Host) check(at string, underlay netip.Prefix) error {
	if !label.MatchString(h.Name) {
		return fmt.Errorf("%sname: %q: want lower-case letters, digits and dashes, at most 63", at, h.Name)
	}
	switch h.Role {
	case Master, Node, Plain:
	default:
		return fmt.Errorf("%srole: %q: want master, node or plain", at, h.Role)
	}
	if h.Subnet.IsValid() && h.Role != Node {
		return fmt.Errorf("%ssubnet: %s: only a host with role node has a pod subnet", at, h.Subnet)
	}
	return checkHostAddr(at+"address", h.Address, underlay)
}

func (t Topology) checkCluster() error {
	c := t.Cluster
	if err := checkNetwork("cluster.network", c.Network, 8, 28); err != nil {
		return err
	}
	if c.SubnetLen <= c.Network.Bits() || c.SubnetLen > 30 {
		return fmt.Errorf("cluster.subnetLen: %d: want %d to 30", c.SubnetLen, c.Network.Bits()+1)
	}
	if err := checkNetwork("cluster.serviceRange", c.ServiceRange, 12, 28); err != nil {
		return err
	}
	if c.Network.Overlaps(c.ServiceRange) {
		return fmt.Errorf("cluster.serviceRange: %s: overlaps cluster.network %s: choose another range", c.ServiceRange, c.Network)
	}
	if u := t.Underlay.Subnet; u.Overlaps(c.ServiceRange) {
		return fmt.Errorf("cluster.serviceRange: %s: overlaps underlay.subnet %s: choose another range", c.ServiceRange, u)
	}
	if c.SecurePort < 1 || c.SecurePort > 65535 {
		return fmt.Errorf("cluster.securePort: %d: want 1 to 65535", c.SecurePort)
	}
	if !ifname.MatchString(c.Bridge) || c.Bridge == "eth0" || c.Bridge == "lo" {
		return fmt.Errorf("cluster.bridge: %q: want an interface name of at most 15 letters and digits", c.Bridge)
	}
	return c.checkPrograms()
}

// checkPrograms checks what the programs are told beside addresses.
func (c Cluster) checkPrograms() error {
	if b := c.Backend; b.VNI < 0 || b.VNI > 1<<24-1 {
		return fmt.Errorf("cluster.backend.vni: %d: want 1 to %d", b.VNI, 1<<24-1)
	}
	if b := c.Backend; b.Port < 0 || b.Port > 65535 {
		return fmt.Errorf("cluster.backend.port: %d: want 1 to 65535", b.Port)
	}
	for _, l := range []struct {
		field string
		flags []string
	}{{"cluster.serverFlags", c.ServerFlags}, {"cluster.agentFlags", c.AgentFlags}} {
		for i, f := range l.flags {
			if !strings.HasPrefix(f, "-") {
				return fmt.Errorf("%s[%d]: %q: want --flag=value", l.field, i, f)
			}
		}
	}
	return oneOf(
		choice{"cluster.backend.type", c.Backend.Type, backends},
		choice{"cluster.proxyMode", c.ProxyMode, proxies},
		choice{"cluster.attach", c.Attach, []string{"routed", "bridge"}},
		choice{"cluster.leaseStore", c.LeaseStore, []string{"etcd", "kube"}})
}

// checkSubnets checks the pod subnets that nodes ask for.
func (t Topology) checkSubnets() error {
	c := t.Cluster
	for i, h := range t.Hosts {
		if !h.Subnet.IsValid() {
			continue
		}
		field := fmt.Sprintf("hosts[%d].subnet", i)
		if err := checkNetwork(field, h.Subnet, 8, 30); err != nil {
			return err
		}
		if h.Subnet.Bits() != c.SubnetLen || !c.Network.Contains(h.Subnet.Addr()) {
			return fmt.Errorf("%s: %s: want a /%d of cluster.network %s", field, h.Subnet, c.SubnetLen, c.Network)
		}
		if h.Subnet.Overlaps(t.Underlay.Subnet) {
			return fmt.Errorf("%s: %s: overlaps underlay.subnet %s: choose another", field, h.Subnet, t.Underlay.Subnet)
		}
		for j, other := range t.Hosts[:i] {
			if other.Subnet.IsValid() && other.Subnet.Overlaps(h.Subnet) {
				return fmt.Errorf("%s: %s: overlaps hosts[%d].subnet %s: subnets differ", field, h.Subnet, j, other.Subnet)
			}
		}
	}
	return nil
}

func checkNetwork(field string, p netip.Prefix, shortest, longest int) error {
	if !p.IsValid() || !p.Addr().Is4() || p.Bits() < shortest || p.Bits() > longest {
		return fmt.Errorf("%s: %s: want an IPv4 network of /%d to /%d", field, p, shortest, longest)
	}
	if p != p.Masked() {
		return fmt.Errorf("%s: %s: has bits behind its length: want %s", field, p, p.Masked())
	}
	if first := p.Addr().As4()[0]; first == 0 || first == 127 || first >= 224 {
		return fmt.Errorf("%s: %s: not a unicast network", field, p)
	}
	return nil
}

// checkHostAddr refuses an address outside of the subnet, the subnet's own and its broadcast address.
func checkHostAddr(field string, a netip.Addr, subnet netip.Prefix) error {
	if !a.IsValid() || !subnet.Contains(a) || a == subnet.Addr() || !a.Next().IsValid() || !subnet.Contains(a.Next()) {
		return fmt.Errorf("%s: %s: want a host address of underlay.subnet %s", field, a, subnet)
	}
	return nil
}

type choice struct {
	field, value string
	known        []string
}

func oneOf(choices ...choice) error {
	for _, c := range choices {
		if !slices.Contains(c.known, c.value) {
			return fmt.Errorf("%s: %q: want %s", c.field, c.value, strings.Join(c.known, ", "))
		}
	}
	return nil
}
