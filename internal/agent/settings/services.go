package settings

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/spf13/pflag"

	"weft/internal/agent/facts"
	"weft/internal/proxy"
)

// Services is what the agent is told of services by its flags, apart from the mode.
type Services struct {
	NodePortAddresses  []string
	LocalhostNodePorts bool
	NodePortRanges     bool
	MasqueradeAll      bool
	Liberal            bool
	Tracking           facts.Tracking

	facts facts.Services
}

// primaryAddresses is the word for the node's primary addresses.
const primaryAddresses = "primary"

func (s *Services) bind(f *pflag.FlagSet) {
	f.StringSliceVar(&s.NodePortAddresses, "nodeport-addresses", nil,
		"network whose addresses of this node accept NodePorts, or \"primary\" for the node's InternalIP addresses; may be repeated; empty: all")
	f.BoolVar(&s.LocalhostNodePorts, "localhost-nodeports", true, "serve NodePorts on 127.0.0.1 and ::1 too, where --nodeport-addresses has them")
	f.BoolVar(&s.NodePortRanges, "nodeport-source-ranges", true,
		"apply a service's loadBalancerSourceRanges to its NodePort too, unless the load balancer proxies (kube-proxy never does)")
	f.BoolVar(&s.MasqueradeAll, "masquerade-all", false, "give all connections to services the node's address as their source")
	f.BoolVar(&s.Liberal, "conntrack-tcp-be-liberal", false,
		"let packets pass that connection tracking takes for out of window (nf_conntrack_tcp_be_liberal)")
	t, d := &s.Tracking, facts.KubeProxyTracking
	f.IntVar(&t.MaxPerCore, "conntrack-max-per-core", d.MaxPerCore, "tracked connections to have room for, for each processor (nf_conntrack_max, only ever raised); 0: as the host has it")
	f.IntVar(&t.Min, "conntrack-min", d.Min, "tracked connections to have room for at least, whatever --conntrack-max-per-core says")
	f.DurationVar(&t.TCPEstablished, "conntrack-tcp-timeout-established", d.TCPEstablished, "how long an idle TCP connection is remembered; 0: as the host has it")
	f.DurationVar(&t.TCPCloseWait, "conntrack-tcp-timeout-close-wait", d.TCPCloseWait, "the same for TCP connections in CLOSE_WAIT; 0: as the host has it")
	f.DurationVar(&t.UDP, "conntrack-udp-timeout", d.UDP, "the same for UDP flows without an answer; 0: as the host has it")
	f.DurationVar(&t.UDPStream, "conntrack-udp-timeout-stream", d.UDPStream, "the same for UDP flows with answers; 0: as the host has it")
}

// validate checks the flags and makes the facts of them.
func (s *Services) validate() error {
	s.facts = facts.Services{
		NoLocalhost: !s.LocalhostNodePorts, OpenNodePorts: !s.NodePortRanges, MasqueradeAll: s.MasqueradeAll, Liberal: s.Liberal,
		Tracking: s.Tracking,
	}
	if err := s.Tracking.Validate(); err != nil {
		return err
	}
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

// Asked is what the flags say, once they were validated.
func (s *Services) Asked() facts.Services { return s.facts }
