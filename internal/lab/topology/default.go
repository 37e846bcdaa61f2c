package topology

import (
	"cmp"
	"strconv"
)

const (
	defaultSubnetLen = 24
	maxNodes         = 64
)

// articleFlags are the article's flags of its API server that the lab does not derive from the topology.
var articleFlags = []string{
	"--allow-privileged=true",
	"--admission-control=NamespaceLifecycle,NamespaceExists,LimitRanger,SecurityContextDeny,ServiceAccount,ResourceQuota",
}

func itoa(i int) string { return strconv.Itoa(i) }

// setDefaults fills what is left out. It makes hosts when there are none.
func (t *Topology) setDefaults() {
	u := &t.Underlay
	if !u.Subnet.IsValid() {
		u.Subnet = prefix("172.17.0.0/16")
	}
	u.MTU = cmp.Or(u.MTU, 1500)
	article := u.Subnet == prefix("172.17.0.0/16")
	if !u.Gateway.IsValid() {
		u.Gateway = u.Subnet.Masked().Addr().Next()
		if article {
			u.Gateway = addr("172.17.42.1")
		}
	}
	if len(t.Hosts) == 0 {
		t.makeHosts()
	}
	t.Nodes = 0
	t.setAddresses(article)
	t.Cluster.setDefaults()
}

func (t *Topology) makeHosts() {
	t.Hosts = []Host{{Name: "kube-master", Role: Master}}
	for i := range min(cmp.Or(t.Nodes, 2), maxNodes) {
		t.Hosts = append(t.Hosts, Host{Name: "kube-node" + itoa(i+1), Role: Node})
	}
}

// setAddresses gives hosts without an address the next free one, from the article's .42.30 or from the subnet's tenth on.
func (t *Topology) setAddresses(article bool) {
	taken := map[string]bool{t.Underlay.Gateway.String(): true}
	for i := range t.Hosts {
		h := &t.Hosts[i]
		if h.Role == "" {
			h.Role = Node
		}
		if h.Address.IsValid() {
			taken[h.Address.String()] = true
		}
	}
	next := t.Underlay.Subnet.Masked().Addr().Next()
	if article {
		next = addr("172.17.42.30")
	}
	for i := range t.Hosts {
		h := &t.Hosts[i]
		if h.Address.IsValid() {
			continue
		}
		for next.IsValid() && taken[next.String()] {
			next = next.Next()
		}
		h.Address = next
		next = next.Next()
	}
}

func (c *Cluster) setDefaults() {
	if !c.Network.IsValid() {
		c.Network = prefix("172.16.0.0/12")
	}
	if !c.ServiceRange.IsValid() {
		c.ServiceRange = prefix("10.254.0.0/16")
	}
	c.SubnetLen = cmp.Or(c.SubnetLen, defaultSubnetLen)
	c.Backend.Type = cmp.Or(c.Backend.Type, "vxlan")
	c.ProxyMode = cmp.Or(c.ProxyMode, "nftables")
	c.Attach = cmp.Or(c.Attach, "routed")
	c.Bridge = cmp.Or(c.Bridge, "cni0")
	c.LeaseStore = cmp.Or(c.LeaseStore, "etcd")
	c.SecurePort = cmp.Or(c.SecurePort, 443)
}
