package attach

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/netip"

	"weft/internal/netstate"
)

// DefaultBridge is the bridge's name when the Config names none.
const DefaultBridge = "cni0"

// leftoverMetric is that of the route that catches what is sent to addresses of the subnet that no pod has: worse than any other's.
const leftoverMetric = 65535

// HostInterface is the name of the host's end of the pod's veth pair: the same for every agent, 15 bytes, the kernel's limit.
func HostInterface(uid string) string {
	sum := sha256.Sum256([]byte(uid))
	return "veth" + hex.EncodeToString(sum[:])[:11]
}

// MAC is the Ethernet address of the pod or bridge with the IP address: 02:42 and the four bytes of IPv4, as Docker did, so that an
// address that moves to another pod needs nobody to learn a new MAC. For IPv6 the four bytes are a hash.
func MAC(ip netip.Addr) string {
	if ip.Is4() {
		b := ip.As4()
		return macText([6]byte{0x02, 0x42, b[0], b[1], b[2], b[3]})
	}
	sum := sha256.Sum256(ip.AsSlice())
	return macText([6]byte{0x02, 0x46, sum[0], sum[1], sum[2], sum[3]})
}

// PodMAC is the Ethernet address of the pod's interface: that of its IPv4 address where it has one.
func (c Config) PodMAC(p Pod) string {
	ips := c.ips(p)
	if len(ips) == 0 {
		return ""
	}
	return MAC(ips[0].ip)
}

// hostMAC is the Ethernet address of the host's end of a pod's veth pair.
func hostMAC(uid string) string {
	sum := sha256.Sum256([]byte(uid))
	return macText([6]byte{0x02, 0x57, sum[28], sum[29], sum[30], sum[31]})
}

func macText(b [6]byte) string {
	return fmt.Sprintf("%02x:%02x:%02x:%02x:%02x:%02x", b[0], b[1], b[2], b[3], b[4], b[5])
}

// Gateway is the first address of the subnet, which the pods have as their gateway.
func Gateway(subnet netip.Prefix) netip.Addr { return subnet.Masked().Addr().Next() }

// Plan returns what the host needs for the pods, and by UID what each pod needs in its own network namespace. The host's part must be
// applied first: it makes the pods' interfaces, and when a pair is lost the pod's part must follow again.
//
// A routed pod has no broadcast domain: its packets go to the gateway address, which every host end of a pair holds as a /32 (so a
// REDIRECT on it finds an address, the host speaks to its pods from it, and it answers ARP), and the neighbour entries of both ends are
// permanent, so that no ARP is needed at all and no proxy ARP has to be trusted.
//
// Addresses outside the node's subnets are left out.
func Plan(c Config, pods []Pod) (host netstate.State, inPod map[string]netstate.State) {
	c.Bridge = cmp.Or(c.Bridge, DefaultBridge)
	host = c.base()
	inPod = make(map[string]netstate.State, len(pods))
	for _, p := range pods {
		ips := c.ips(p)
		if len(ips) == 0 {
			continue
		}
		h, in := c.routed(p, ips)
		switch c.Mode {
		case Bridge:
			h, in = c.bridged(p, ips)
		case L2:
			h, in = c.isolated(p, ips)
		}
		host.Add(h...)
		inPod[p.UID] = netstate.New(in...)
	}
	return host, inPod
}

// linkLocal is an address of every bridge with IPv6 pods.
var linkLocal = netip.MustParsePrefix("fe80::1/64")

// disabled is the value of disable_ipv6.
var disabled = map[bool]string{true: "1", false: "0"}

// podIP is an address of a pod with its subnet on this node.
type podIP struct {
	ip     netip.Addr
	subnet netip.Prefix
}

// ips returns the pod's first address of each family that lies in the node's subnet, IPv4 first.
func (c Config) ips(p Pod) []podIP {
	var out []podIP
	for _, subnet := range c.subnets() {
		for _, ip := range p.IPs {
			if subnet.Contains(ip) {
				out = append(out, podIP{ip, subnet})
				break
			}
		}
	}
	return out
}

func (c Config) subnets() []netip.Prefix {
	var out []netip.Prefix
	for _, s := range []netip.Prefix{c.Subnet, c.SubnetV6} {
		if s.IsValid() {
			out = append(out, s.Masked())
		}
	}
	return out
}

// base is what the host needs without any pod.
func (c Config) base() netstate.State {
	s := netstate.New()
	if c.Mode == L2 {
		c.addIsolated(&s)
		return s
	}
	if c.Subnet.IsValid() {
		s.Add(netstate.Sysctl{Name: "net/ipv4/ip_forward", Value: "1"})
	}
	if c.SubnetV6.IsValid() {
		s.Add(netstate.Sysctl{Name: "net/ipv6/conf/all/forwarding", Value: "1"})
	}
	if c.Mode == Bridge {
		c.addBridge(&s)
		return s
	}
	for _, subnet := range c.subnets() {
		s.Add(netstate.Route{Type: "unreachable", Dst: subnet, Metric: leftoverMetric})
	}
	return s
}

func (c Config) addBridge(s *netstate.State) {
	subnets := c.subnets()
	if len(subnets) == 0 {
		return
	}
	s.Add(netstate.Link{
		Name: c.Bridge, Type: netstate.TypeBridge, MTU: c.MTU, MAC: c.bridgeMAC(), Alias: netstate.AliasPrefix + "bridge", Up: true,
	})
	for _, subnet := range subnets {
		s.Add(netstate.Addr{Dev: c.Bridge, Prefix: netip.PrefixFrom(Gateway(subnet), subnet.Bits())})
	}
	if c.SubnetV6.IsValid() {
		s.Add(netstate.Sysctl{Name: "net/ipv6/conf/" + c.Bridge + "/accept_ra", Value: "0"})
		// The kernel asks for a pod's MAC on behalf of others only from a link-local address that is no longer tentative. The one it gives the
		// bridge itself takes two seconds of duplicate address detection.
		s.Add(netstate.Addr{Dev: c.Bridge, Prefix: linkLocal})
	}
	// Two pods of one bridge reach each other through a service only if the bridge shows their packets to the NAT rules.
	if c.BridgeNetfilter && c.Subnet.IsValid() {
		s.Add(netstate.Sysctl{Name: "net/bridge/bridge-nf-call-iptables", Value: "1"})
	}
	if c.BridgeNetfilter && c.SubnetV6.IsValid() {
		s.Add(netstate.Sysctl{Name: "net/bridge/bridge-nf-call-ip6tables", Value: "1"})
	}
}

// bridgeMAC is the bridge's Ethernet address, "" when there are no subnets.
func (c Config) bridgeMAC() string {
	for _, s := range c.subnets() {
		return cmp.Or(c.BridgeMAC, MAC(Gateway(s)))
	}
	return ""
}

// pair is the host's end of the pod's veth pair, which makes the other one too.
func (c Config) pair(p Pod, ips []podIP) netstate.Link {
	return netstate.Link{
		Name: HostInterface(p.UID), Type: netstate.TypeVeth, MTU: c.MTU, MAC: hostMAC(p.UID), Alias: alias(p), Up: true,
		Peer: netstate.Peer{Name: PodInterface, Netns: p.Netns, MAC: MAC(ips[0].ip)},
	}
}

// alias says whose interface it is, within the kernel's 255 bytes.
func alias(p Pod) string {
	a := netstate.AliasPrefix + "pod:" + p.UID + ":" + p.Namespace + "/" + p.Name
	return a[:min(len(a), 255)]
}

// inside is the pod's end, the same in both modes.
func (c Config) inside(ips []podIP) []netstate.Object {
	out := []netstate.Object{netstate.Link{
		Name: PodInterface, Type: netstate.TypeVeth, MTU: c.MTU, MAC: MAC(ips[0].ip), Alias: netstate.AliasPrefix + "pod", Up: true,
	}}
	for _, a := range ips {
		if a.ip.Is6() {
			out = append(out, netstate.Sysctl{Name: "net/ipv6/conf/" + PodInterface + "/accept_ra", Value: "0"})
		}
	}
	return out
}

func (c Config) routed(p Pod, ips []podIP) (host, inPod []netstate.Object) {
	pair := c.pair(p, ips)
	host, inPod = append(host, pair), c.inside(ips)
	v4, v6 := false, false
	for _, a := range ips {
		gw := Gateway(a.subnet)
		v4, v6 = v4 || a.ip.Is4(), v6 || a.ip.Is6()
		host = append(host,
			netstate.Addr{Dev: pair.Name, Prefix: single(gw)},
			netstate.Neigh{Dev: pair.Name, IP: a.ip, MAC: pair.Peer.MAC},
			netstate.Route{Dst: single(a.ip), Dev: pair.Name})
		inPod = append(inPod,
			netstate.Addr{Dev: PodInterface, Prefix: single(a.ip)},
			netstate.Neigh{Dev: PodInterface, IP: gw, MAC: pair.MAC},
			netstate.Route{Dst: everywhere(a.ip), Via: gw, Dev: PodInterface, Onlink: true})
	}
	if v4 { // a pod sends from its own address only
		host = append(host, netstate.Sysctl{Name: "net/ipv4/conf/" + pair.Name + "/rp_filter", Value: "1"})
	}
	if c.IPv6 { // said both ways, so that a switch from mode bridge undoes it
		host = append(host, netstate.Sysctl{Name: "net/ipv6/conf/" + pair.Name + "/disable_ipv6", Value: disabled[!v6]})
	}
	return host, inPod
}

// bridged attaches a pod to the bridge. The neighbour entries of both ends are permanent here, too: a bridge whose ports went down forgets the
// others, the question that follows is lost on a port that does not forward yet, and the next one is asked a second later.
func (c Config) bridged(p Pod, ips []podIP) (host, inPod []netstate.Object) {
	pair := c.pair(p, ips)
	pair.Master = c.Bridge
	pair.Port = netstate.Port{Hairpin: true}
	host, inPod = append(host, pair), c.inside(ips)
	for _, a := range ips {
		host = append(host, netstate.Neigh{Dev: c.Bridge, IP: a.ip, MAC: pair.Peer.MAC})
		inPod = append(inPod,
			netstate.Addr{Dev: PodInterface, Prefix: netip.PrefixFrom(a.ip, a.subnet.Bits())},
			netstate.Neigh{Dev: PodInterface, IP: Gateway(a.subnet), MAC: c.bridgeMAC()},
			netstate.Route{Dst: everywhere(a.ip), Via: Gateway(a.subnet), Dev: PodInterface})
	}
	if c.IPv6 { // a port has no use for addresses of its own
		host = append(host, netstate.Sysctl{Name: "net/ipv6/conf/" + pair.Name + "/disable_ipv6", Value: disabled[true]})
	}
	return host, inPod
}

// addIsolated adds the bridge of mode l2. The host has no address on it, not even a link-local one, so it can't talk to its pods.
func (c Config) addIsolated(s *netstate.State) {
	subnets := c.subnets()
	if len(subnets) == 0 {
		return
	}
	s.Add(netstate.Link{
		Name: c.Bridge, Type: netstate.TypeBridge, MTU: c.MTU, MAC: c.bridgeMAC(), Alias: netstate.AliasPrefix + "bridge", Up: true,
	})
	if c.IPv6 {
		s.Add(netstate.Sysctl{Name: "net/ipv6/conf/" + c.Bridge + "/disable_ipv6", Value: disabled[true]})
	}
}

// isolated attaches a pod in mode l2: the whole network is on its link, and there is no gateway.
func (c Config) isolated(p Pod, ips []podIP) (host, inPod []netstate.Object) {
	pair := c.pair(p, ips)
	pair.Master = c.Bridge
	host, inPod = append(host, pair), c.inside(ips)
	for _, a := range ips {
		bits := a.subnet.Bits()
		for _, network := range []netip.Prefix{c.Network, c.NetworkV6} {
			if network.IsValid() && network.Contains(a.ip) {
				bits = network.Bits()
			}
		}
		inPod = append(inPod, netstate.Addr{Dev: PodInterface, Prefix: netip.PrefixFrom(a.ip, bits)})
	}
	if c.IPv6 {
		host = append(host, netstate.Sysctl{Name: "net/ipv6/conf/" + pair.Name + "/disable_ipv6", Value: disabled[true]})
	}
	return host, inPod
}

func single(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

// everywhere is the destination of a default route of the address's family.
func everywhere(a netip.Addr) netip.Prefix {
	if a.Is4() {
		return netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	}
	return netip.PrefixFrom(netip.IPv6Unspecified(), 0)
}
