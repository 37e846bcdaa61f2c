package services

import "weft/internal/xt"

// local counts the service ports that have a traffic policy Local and no endpoint here: internal, external.
func (p *Loop) local() (n [2]int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.limits.WithoutLocal()
}

// ruleCounts counts the rules of iptables that are weft's, by table: IPv4, IPv6.
func (p *Loop) ruleCounts() map[string][2]int {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := map[string][2]int{}
	want := p.wantedXT()
	for i, tables := range []xt.Tables{want.V4, want.V6} {
		for _, t := range tables {
			n := out[t.Name]
			for _, c := range t.Chains {
				n[i] += len(c.Rules)
			}
			out[t.Name] = n
		}
	}
	return out
}
