package others

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	kernelnft "weft/internal/kernel/nft"
	"weft/internal/nft"
	values "weft/internal/xt"
)

// kubeProxyChains are the iptables chains of a kube-proxy in mode iptables; those that end in a dash begin the names of one for each service
// or endpoint. The kubelet's own (KUBE-FIREWALL, KUBE-KUBELET-CANARY, KUBE-IPTABLES-HINT) are not among them.
var kubeProxyChains = []string{
	"KUBE-SERVICES", "KUBE-EXTERNAL-SERVICES", "KUBE-NODEPORTS", "KUBE-POSTROUTING", "KUBE-MARK-MASQ", "KUBE-FORWARD", "KUBE-PROXY-FIREWALL",
	"KUBE-PROXY-CANARY", "KUBE-SVC-", "KUBE-SVL-", "KUBE-SEP-", "KUBE-EXT-", "KUBE-XLB-", "KUBE-FW-",
}

// ipvsChains are those a kube-proxy in mode ipvs makes besides. They name ipsets, and its addresses and virtual servers are no rules: weft
// only tells of them.
var ipvsChains = []string{"KUBE-LOAD-BALANCER", "KUBE-NODE-PORT", "KUBE-IPVS-FILTER", "KUBE-IPVS-OUT-FILTER", "KUBE-SOURCE-RANGES-FIREWALL"}

// KubeProxyTables are the tables of a kube-proxy in mode nftables.
var KubeProxyTables = []nft.Op{
	{Verb: nft.Del, Kind: nft.KindTable, Family: nft.IPv4, Table: "kube-proxy"},
	{Verb: nft.Del, Kind: nft.KindTable, Family: nft.IPv6, Table: "kube-proxy"},
}

// kubeProxys reports whether a chain is a kube-proxy's.
func kubeProxys(chain string) bool {
	return slices.ContainsFunc(kubeProxyChains, func(name string) bool {
		return chain == name || strings.HasSuffix(name, "-") && strings.HasPrefix(chain, name)
	})
}

// KubeProxyOps are the ops that remove a kube-proxy's chains and the jumps to them: these first, so that no packet meets half of them. A
// chain that one of others leads to stays, empty.
func KubeProxyOps(have values.Ruleset) []values.Op {
	var ops []values.Op
	for _, v6 := range []bool{false, true} {
		for _, t := range *have.Family(v6) {
			var jumps, flushes, deletes []values.Op
			for _, c := range t.Chains {
				op := values.Op{V6: v6, Table: t.Name, Chain: c.Name}
				if kubeProxys(c.Name) {
					flush, del := op, op
					flush.Verb, del.Verb = values.Flush, values.DelChain
					flushes, deletes = append(flushes, flush), append(deletes, del)
					continue
				}
				for _, r := range c.Rules {
					if j, ok := r.Target.(values.Jump); ok && kubeProxys(j.Chain) {
						op.Verb, op.Rule = values.Delete, r
						jumps = append(jumps, op)
					}
				}
			}
			ops = append(ops, slices.Concat(jumps, flushes, deletes)...)
		}
	}
	return ops
}

// Serving looks for a kube-proxy's rules that packets meet: chains that a built-in one leads to.
func Serving(have values.Ruleset) []string {
	var out []string
	for _, v6 := range []bool{false, true} {
		for _, t := range *have.Family(v6) {
			for _, c := range t.Chains {
				for _, r := range c.Rules {
					if j, ok := r.Target.(values.Jump); ok && values.Builtin(c.Name) && (kubeProxys(j.Chain) || slices.Contains(ipvsChains, j.Chain)) {
						out = append(out, "iptables chain "+t.Name+" "+j.Chain)
					}
				}
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// ServingTables are the tables of a kube-proxy.
func ServingTables(all []kernelnft.BaseChain) []string {
	var out []string
	for _, c := range all {
		if c.Table == "kube-proxy" && (c.Family == nft.IPv4 || c.Family == nft.IPv6) {
			out = append(out, fmt.Sprintf("table %s %s", c.Family, c.Table))
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// IpvsLeft says what a kube-proxy in mode ipvs left that is no rule; sys and proc are the host's.
func IpvsLeft(sys, proc string) []string {
	var out []string
	if _, err := os.Stat(filepath.Join(sys, "class/net/kube-ipvs0")); err == nil {
		out = append(out, "link kube-ipvs0")
	}
	// Three lines are the heading.
	if b, err := os.ReadFile(filepath.Join(proc, "net/ip_vs")); err == nil && strings.Count(strings.TrimSpace(string(b)), "\n") > 2 {
		out = append(out, "IPVS virtual servers")
	}
	return out
}

// WarnKubeProxy adds a kube-proxy's rules to the warnings.
func WarnKubeProxy(out, rules []string) []string {
	if len(rules) > 0 {
		out = append(out, "a kube-proxy's rules are here too, the first to match a new connection decides: "+strings.Join(rules, ", ")+
			". If weft is to serve, stop kube-proxy and: weft cleanup --kube-proxy. If kube-proxy is, put weft in --proxy-mode=none")
	}
	if left := IpvsLeft("/sys", "/proc"); len(left) > 0 {
		out = append(out, "a kube-proxy in mode ipvs was here: "+strings.Join(left, ", ")+
			". They take packets before any rule of weft: kube-proxy --cleanup removes them")
	}
	return out
}
