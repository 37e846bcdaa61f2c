package agent

import (
	"context"

	"weft/internal/agent/facts"
	"weft/internal/agent/rules"
	"weft/internal/agent/settings"
	"weft/internal/kernel/xt"
)

// nameIdle says which networks given by flag concern no packet.
func (a *agent) nameIdle(f facts.Facts, m facts.Masquerading) {
	for _, p := range m.NonMasquerade {
		network := f.Network
		if p.Addr().Is6() {
			network = f.NetworkV6
		}
		if !network.IsValid() {
			a.log.Warn("--non-masquerade-cidr has no effect: the pod network has no addresses of its family", "cidr", p)
		}
	}
}

// checkRandomPorts lets source ports be kept where the host's iptables can't choose them fully at random.
func (a *agent) checkRandomPorts(ctx context.Context, c *settings.Config) {
	if rules.ModeNamed(facts.ProxyMode(c.ProxyMode)).Table || c.Masquerade.Asked().KeepPorts {
		return
	}
	if err := (xt.Kernel{}).RandomFully(ctx); err != nil {
		c.Masquerade.KeepPorts()
		a.log.Warn("--ip-masq-random-fully: this host's iptables can't choose source ports fully at random (1.6.2 and later can): "+
			"masqueraded connections keep their ports where possible", "err", err)
	}
}
