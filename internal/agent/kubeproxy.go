package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"weft/internal/agent/rules"
	"weft/internal/agent/rundir"
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

// kubeProxyTables are the tables of a kube-proxy in mode nftables.
var kubeProxyTables = []nft.Op{
	{Verb: nft.Del, Kind: nft.KindTable, Family: nft.IPv4, Table: "kube-proxy"},
	{Verb: nft.Del, Kind: nft.KindTable, Family: nft.IPv6, Table: "kube-proxy"},
}

// kubeProxys reports whether a chain is a kube-proxy's.
func kubeProxys(chain string) bool {
	return slices.ContainsFunc(kubeProxyChains, func(name string) bool {
		return chain == name || strings.HasSuffix(name, "-") && strings.HasPrefix(chain, name)
	})
}

// kubeProxyOps are the ops that remove a kube-proxy's chains and the jumps to them: these first, so that no packet meets half of them. A
// chain that one of others leads to stays, empty.
func kubeProxyOps(have values.Ruleset) []values.Op {
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

// serving looks for a kube-proxy's rules that packets meet: chains that a built-in one leads to.
func serving(have values.Ruleset) []string {
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

// servingTables are the tables of a kube-proxy.
func servingTables(all []kernelnft.BaseChain) []string {
	var out []string
	for _, c := range all {
		if c.Table == "kube-proxy" && (c.Family == nft.IPv4 || c.Family == nft.IPv6) {
			out = append(out, fmt.Sprintf("table %s %s", c.Family, c.Table))
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// ipvsLeft says what a kube-proxy in mode ipvs left that is no rule; sys and proc are the host's.
func ipvsLeft(sys, proc string) []string {
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

// warnKubeProxy adds a kube-proxy's rules to the warnings.
func warnKubeProxy(out, rules []string) []string {
	if len(rules) > 0 {
		out = append(out, "a kube-proxy's rules are here too, the first to match a new connection decides: "+strings.Join(rules, ", ")+
			". If weft is to serve, stop kube-proxy and: weft cleanup --kube-proxy. If kube-proxy is, put weft in --proxy-mode=none")
	}
	if left := ipvsLeft("/sys", "/proc"); len(left) > 0 {
		out = append(out, "a kube-proxy in mode ipvs was here: "+strings.Join(left, ", ")+
			". They take packets before any rule of weft: kube-proxy --cleanup removes them")
	}
	return out
}

// cleanKubeProxy removes a kube-proxy's rules when the agent's own do their work.
func (o cleanup) cleanKubeProxy(ctx context.Context) error {
	if pids := running("/proc", "kube-proxy"); len(pids) > 0 {
		return fmt.Errorf("kube-proxy runs here (process %s) and would put its rules back: stop it first", strings.Join(pids, ", "))
	}
	body, err := rundir.Ask(ctx, o.runDir, "/status")
	if err != nil {
		return fmt.Errorf("the agent's rules must be in place before kube-proxy's go: %w", err)
	}
	var s Status
	if err := json.Unmarshal(body, &s); err != nil {
		return fmt.Errorf("read the agent's status: %w", err)
	}
	if !s.Converged {
		return errors.New("the agent's rules must be in place before kube-proxy's go: weft status says not converged, see why there")
	}
	if !rules.ModeNamed(s.ProxyMode).Services {
		return fmt.Errorf("the agent is in --proxy-mode=%s: without kube-proxy's rules nobody would serve: choose another mode first", s.ProxyMode)
	}
	err = errors.Join(o.tables(kubeProxyTables...), o.chains(ctx, kubeProxyOps))
	for _, left := range ipvsLeft("/sys", "/proc") {
		fmt.Fprintf(o.out, "# left: %s, of a kube-proxy in mode ipvs: kube-proxy --cleanup removes it\n", left)
	}
	return err
}

// keptChains are the iptables chains of ours that are not about services, keptPrefixes begin the names of those and the sets in table inet
// weft.
var (
	keptChains   = []string{"WEFT-KEEP", "WEFT-POSTROUTING", "WEFT-FORWARD", rules.ChainNotrack}
	keptPrefixes = []string{"edge-", "overlay-", "seal-", "pods-"}
)

// cleanServices removes what serves services and leaves the rest: overlay, edge check and masquerading.
func (o cleanup) cleanServices(ctx context.Context) error {
	unlock, err := rundir.Lock(filepath.Join(o.runDir, "agent.lock"))
	if err != nil {
		return err
	}
	defer unlock()
	return errors.Join(o.tableServices(), o.chains(ctx, servicesOps))
}

// servicesOps are the ops that remove the services' chains of ours.
func servicesOps(have values.Ruleset) []values.Op {
	var want values.Ruleset
	about := func(chain string) bool { return values.Owned(chain) && !slices.Contains(keptChains, chain) }
	for _, v6 := range []bool{false, true} {
		for _, t := range *have.Family(v6) {
			for _, c := range t.Chains {
				if about(c.Name) {
					continue
				}
				rules := slices.DeleteFunc(slices.Clone(c.Rules), func(r values.Rule) bool {
					j, ok := r.Target.(values.Jump)
					return ok && about(j.Chain) || !r.Owned() && !values.Owned(c.Name)
				})
				if values.Owned(c.Name) || len(rules) > 0 {
					want.Family(v6).Add(t.Name, c.Name, rules...)
				}
			}
		}
	}
	return values.Diff(want, have)
}

// tableServices takes the services out of table inet weft.
func (o cleanup) tableServices() error {
	c, err := kernelnft.Open()
	if err != nil {
		return err
	}
	defer c.Close()
	have, err := c.Outline(nft.INet, nft.TableName)
	if err != nil || have == nil {
		return err
	}
	kept := func(name string) bool {
		return slices.ContainsFunc(keptPrefixes, func(p string) bool { return strings.HasPrefix(name, p) })
	}
	want := *have
	want.Chains = slices.DeleteFunc(slices.Clone(have.Chains), func(c nft.Chain) bool { return !kept(c.Name) })
	want.Sets = slices.DeleteFunc(slices.Clone(have.Sets), func(s nft.Set) bool { return !kept(s.Name) })
	ops := nft.Diff(want, have)
	for _, op := range ops {
		fmt.Fprintf(o.out, "nft %s\n", op)
	}
	if o.dryRun || len(ops) == 0 {
		return nil
	}
	return c.Apply(ops)
}
