package settings

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/spf13/pflag"

	"weft/internal/agent/facts"
)

// Masquerade is what the agent is told of masquerading and forwarding by its flags, apart from the mode.
type Masquerade struct {
	NonMasqueradeCIDRs []string
	RandomFully        bool
	MarkBit            int
	ForwardRules       bool

	facts facts.Masquerading
}

// defaultMarkBit is the bit of the packet mark that kube-proxy uses by default.
const defaultMarkBit = 14

func (m *Masquerade) bind(f *pflag.FlagSet) {
	f.StringSliceVar(&m.NonMasqueradeCIDRs, "non-masquerade-cidr", nil,
		"network beyond the pod network, IPv4 or IPv6, that sees pods' own addresses and has a route to them; may be repeated")
	f.BoolVar(&m.RandomFully, "ip-masq-random-fully", true, "choose source ports of masqueraded connections fully at random")
	f.IntVar(&m.MarkBit, "masquerade-mark-bit", defaultMarkBit,
		"bit of the packet mark, 0 to 31, by which a service proxy says that it masquerades a packet itself (kube-proxy's --iptables-masquerade-bit)")
	f.BoolVar(&m.ForwardRules, "forward-rules", true, "accept pods' packets in iptables' chain FORWARD, where iptables is in use")
}

// validate checks the flags and makes the facts of them. masquerades: something is masqueraded at all.
func (m *Masquerade) validate(masquerades bool) error {
	if m.MarkBit < 0 || m.MarkBit > 31 {
		return fmt.Errorf("--masquerade-mark-bit=%d: a packet mark has the bits 0 to 31", m.MarkBit)
	}
	m.facts = facts.Masquerading{KeepPorts: !m.RandomFully, MarkBits: 1 << m.MarkBit, NoForward: !m.ForwardRules}
	for _, text := range m.NonMasqueradeCIDRs {
		p, err := netip.ParsePrefix(text)
		switch {
		case err != nil || p != p.Masked() || p.Addr().Is4In6():
			return fmt.Errorf("--non-masquerade-cidr=%s: want a network like 10.0.0.0/8 or fd00:1::/32, without host bits", text)
		case p.Bits() == 0:
			return fmt.Errorf("--non-masquerade-cidr=%s: that is every address: give --ip-masq=false instead", text)
		case p.Addr().IsMulticast():
			return fmt.Errorf("--non-masquerade-cidr=%s: multicast is never masqueraded: leave it out", text)
		case !masquerades:
			return fmt.Errorf("--non-masquerade-cidr=%s: with --ip-masq=false nothing is masqueraded: leave one of the two out", text)
		}
		if !slices.Contains(m.facts.NonMasquerade, p) {
			m.facts.NonMasquerade = append(m.facts.NonMasquerade, p)
		}
	}
	return nil
}

// Asked is what the flags say, once they were validated.
func (m *Masquerade) Asked() facts.Masquerading { return m.facts }

// KeepPorts lets masqueraded connections keep their ports where possible, whatever the flags say.
func (m *Masquerade) KeepPorts() { m.facts.KeepPorts = true }
