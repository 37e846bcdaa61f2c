package facts

import (
	"net/netip"
	"os"
	"slices"

	"weft/internal/netstate"
	"weft/internal/proxy"
)

// Services is the part of the facts that says how services are served, apart from the mode. The zero value is the flags' defaults.
type Services struct {
	NodePortAddresses []netip.Prefix `json:"nodePortAddresses,omitempty"`
	NodePortPrimary   bool           `json:"nodePortPrimary,omitempty"` // on the node's primary address of each family only
	NoLocalhost       bool           `json:"noLocalhost,omitempty"`     // no NodePorts on 127.0.0.1 and ::1
	OpenNodePorts     bool           `json:"openNodePorts,omitempty"`   // source ranges do not count for NodePorts
	MasqueradeAll     bool           `json:"masqueradeAll,omitempty"`
	Liberal           bool           `json:"liberal,omitempty"`
	NoSCTP            bool           `json:"noSCTP,omitempty"` // the kernel can't translate SCTP
	NoHash            bool           `json:"noHash,omitempty"` // nf_tables can't hash
	Tracking          Tracking       `json:"-"`                // of no interest to who explains a packet's way
	Untracked         bool           `json:"-"`                // the kernel tracks no connections: it has not been asked to yet
}

// sctpParameter is there when connection tracking knows SCTP.
const sctpParameter = "/proc/sys/net/netfilter/nf_conntrack_sctp_timeout_established"

// trackedParameter is there when connection tracking is.
const trackedParameter = "/proc/sys/net/netfilter/nf_conntrack_max"

// Probe finds out what of services the kernel can't do.
func (s *Services) Probe() {
	exists := func(path string) bool { _, err := os.Stat(path); return err == nil }
	s.Untracked = !exists(trackedParameter)
	s.NoSCTP = !s.Untracked && !exists(sctpParameter)
}

// Apply tells the planners' node what the flags say. addrs are the node's InternalIP addresses where it is registered, else its own.
func (s Services) Apply(n *proxy.Node, addrs []netip.Addr) {
	n.LocalhostNodePorts, n.OpenNodePorts, n.NoSCTP, n.NoHash = !s.NoLocalhost, s.OpenNodePorts, s.NoSCTP, s.NoHash
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

// Parameters are the kernel's that follow from the flags, where services are served at all.
func (s Services) Parameters(m ProxyMode) netstate.State {
	if m == NoProxy || s.Untracked {
		return netstate.New()
	}
	state := s.Tracking.Parameters()
	if s.Liberal {
		state.Add(netstate.Sysctl{Name: "net/netfilter/nf_conntrack_tcp_be_liberal", Value: "1"})
	}
	return state
}
