package nftables

import (
	"weft/internal/api"
	"weft/internal/nft"
	"weft/internal/proxy"
)

// Plans plans the services of one node. It keeps what the plans of services have in common, so that ten thousand of them hold it once. It
// may not be used concurrently.
type Plans struct {
	Planner
	n      proxy.Node
	chains map[chainKey]nft.Chain
	sets   map[list]*lookups
	cidrs  [2]bool // whether pod networks of the family are known
	bytes  []byte  // room for keys in the making
}

// chainKey is all that the chain of a choice depends on.
type chainKey struct {
	list
	slots    int
	hashed   bool
	masq     source
	affinity int
}

// lookups are the sets that packets to a list's addresses or ports are looked up in.
type lookups struct {
	verdicts, rejected, dropped, endpoints, clusterIPs nft.Set
}

// For returns what plans services for the node.
func (p Planner) For(n proxy.Node) *Plans {
	return &Plans{
		Planner: p, n: n, chains: map[chainKey]nft.Chain{}, sets: map[list]*lookups{},
		cidrs: [2]bool{len(families[0].clusterCIDRs(n)) > 0, len(families[1].clusterCIDRs(n)) > 0},
	}
}

// Plan plans one service port: what it adds to Base. The whole plan is the union of Base and of Plan of every service port (nft.Union,
// nft.Merge).
func (p *Plans) Plan(s api.ServicePort) nft.Table {
	proto, ok := protocols[s.Protocol]
	if !ok || s.Port == 0 {
		return nft.New()
	}
	b := &builder{Plans: p, s: clean(s), proto: proto, t: nft.New()}
	for _, f := range families {
		b.family(f)
	}
	return b.t
}

// chain is the chain of a choice.
func (p *Plans) chain(c choice) nft.Chain {
	key := chainKey{list: c.list, slots: c.slots, hashed: c.hashed, masq: c.masq, affinity: c.affinity}
	out, ok := p.chains[key]
	if !ok {
		out = p.Planner.chain(p.n, c)
		p.chains[key] = out
	}
	return out
}

func (p *Plans) lookups(l list) *lookups {
	out := p.sets[l]
	if out != nil {
		return out
	}
	out = &lookups{
		verdicts: l.vips(), rejected: l.addresses("rejected"), dropped: l.addresses("dropped"), endpoints: l.endpoints(), clusterIPs: l.clusterIPs(),
	}
	if l.port {
		out.verdicts, out.rejected, out.dropped = l.ports(), l.portsOnly("rejected"), l.portsOnly("dropped")
	}
	p.sets[l] = out
	return out
}
