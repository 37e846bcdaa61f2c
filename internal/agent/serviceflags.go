package agent

import (
	"fmt"
	"net/netip"
	"os"
	"slices"

	"github.com/spf13/pflag"

	"weft/internal/api"
	"weft/internal/netstate"
	"weft/internal/proxy"
)

// ServiceFlags is what the agent is told of services by its flags, apart from the mode.
type ServiceFlags struct {
	NodePortAddresses  []string
	LocalhostNodePorts bool
	NodePortRanges     bool
	MasqueradeAll      bool
	Liberal            bool

	facts ServiceFacts
}

// ServiceFacts is the part of the facts that says how services are served, apart from the mode. The zero value is the flags' defaults.
type ServiceFacts struct {
	NodePortAddresses []netip.Prefix `json:"nodePortAddresses,omitempty"`
	NodePortPrimary   bool           `json:"nodePortPrimary,omitempty"` // on the node's primary address of each family only
	NoLocalhost       bool           `json:"noLocalhost,omitempty"`     // no NodePorts on 127.0.0.1 and ::1
	OpenNodePorts     bool           `json:"openNodePorts,omitempty"`   // source ranges do not count for NodePorts
	MasqueradeAll     bool           `json:"masqueradeAll,omitempty"`
	Liberal           bool           `json:"liberal,omitempty"`
	NoSCTP            bool           `json:"noSCTP,omitempty"` // the kernel can't translate SCTP
}

// primaryAddresses is the word for the node's primary addresses.
const primaryAddresses = "primary"

func (s *ServiceFlags) bind(f *pflag.FlagSet) {
	f.StringSliceVar(&s.NodePortAddresses, "nodeport-addresses", nil,
		"network whose addresses of this node accept NodePorts, or \"primary\" for the node's InternalIP addresses; may be repeated; empty: all")
	f.BoolVar(&s.LocalhostNodePorts, "localhost-nodeports", true, "serve NodePorts on 127.0.0.1 and ::1 too, where --nodeport-addresses has them")
	f.BoolVar(&s.NodePortRanges, "nodeport-source-ranges", true,
		"apply a service's loadBalancerSourceRanges to its NodePort too, unless the load balancer proxies (kube-proxy never does)")
	f.BoolVar(&s.MasqueradeAll, "masquerade-all", false, "give all connections to services the node's address as their source")
	f.BoolVar(&s.Liberal, "conntrack-tcp-be-liberal", false,
		"let packets pass that connection tracking takes for out of window (nf_conntrack_tcp_be_liberal)")
}

// validate checks the flags and makes the facts of them.
func (s *ServiceFlags) validate() error {
	s.facts = ServiceFacts{NoLocalhost: !s.LocalhostNodePorts, OpenNodePorts: !s.NodePortRanges, MasqueradeAll: s.MasqueradeAll, Liberal: s.Liberal}
	for _, text := range s.NodePortAddresses {
		if text == primaryAddresses {
			s.facts.NodePortPrimary = true
			continue
		}
		p, err := netip.ParsePrefix(text)
		v6 := p.Addr().Is6()
		switch {
		case err != nil || p.Addr().Is4In6() || p != p.Masked():
			return fmt.Errorf("--nodeport-addresses=%s: want a network like 192.168.0.0/16 or fd00:1::/32 without host bits, or %q", text, primaryAddresses)
		case p.Bits() > 0 && p.Overlaps(proxy.Loopback(v6)) && p.Bits() < proxy.Loopback(v6).Bits():
			return fmt.Errorf("--nodeport-addresses=%s: holds %s and more: name the networks apart", text, proxy.Loopback(v6))
		case p.Addr().IsMulticast():
			return fmt.Errorf("--nodeport-addresses=%s: multicast, no node has such addresses: leave it out", text)
		}
		if !slices.Contains(s.facts.NodePortAddresses, p) {
			s.facts.NodePortAddresses = append(s.facts.NodePortAddresses, p)
		}
	}
	if s.facts.NodePortPrimary && len(s.NodePortAddresses) > 1 {
		return fmt.Errorf("--nodeport-addresses=%s: %q stands alone: leave it or the networks out", s.NodePortAddresses, primaryAddresses)
	}
	return nil
}

// sctpParameter is there when connection tracking knows SCTP.
const sctpParameter = "/proc/sys/net/netfilter/nf_conntrack_sctp_timeout_established"

// trackedParameter is there when connection tracking is.
const trackedParameter = "/proc/sys/net/netfilter/nf_conntrack_max"

// probe finds out what of services the kernel can't do.
func (s *ServiceFacts) probe() {
	exists := func(path string) bool { _, err := os.Stat(path); return err == nil }
	s.NoSCTP = exists(trackedParameter) && !exists(sctpParameter)
}

// apply tells the planners' node what the flags say. addrs are the node's InternalIP addresses where it is registered, else its own.
func (s ServiceFacts) apply(n *proxy.Node, addrs []netip.Addr) {
	n.LocalhostNodePorts, n.OpenNodePorts, n.NoSCTP = !s.NoLocalhost, s.OpenNodePorts, s.NoSCTP
	n.NodePortAddresses = s.NodePortAddresses
	if !s.NodePortPrimary {
		return
	}
	for _, v6 := range []bool{false, true} {
		if i := slices.IndexFunc(addrs, func(a netip.Addr) bool { return a.Is6() == v6 }); i >= 0 {
			n.NodePortAddresses = append(slices.Clip(n.NodePortAddresses), netip.PrefixFrom(addrs[i], addrs[i].BitLen()))
		}
	}
}

// addressesOf are a node's InternalIP addresses, or the given ones when it is not registered.
func addressesOf(n *api.Node, own []netip.Addr) []netip.Addr {
	if n == nil || len(n.Addresses) == 0 {
		return own
	}
	return n.Addresses
}

// parameters are the kernel's that follow from the flags.
func (s ServiceFacts) parameters() netstate.State {
	state := netstate.New()
	if s.Liberal {
		state.Add(netstate.Sysctl{Name: "net/netfilter/nf_conntrack_tcp_be_liberal", Value: "1"})
	}
	return state
}
