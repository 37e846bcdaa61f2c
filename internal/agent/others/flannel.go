// Package others knows what flannel and kube-proxy make and leave behind in the kernel of a host: how it is found, told of and taken away.
//
// Floor 4, programs.
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

// flannelChains are the iptables chains that flanneld makes and leaves behind. It makes FLANNEL-FWD in table filter, and looks for it in nat
// too.
var flannelChains = []string{"FLANNEL-POSTRTG", "FLANNEL-FWD"}

// FlannelTables are the tables of flanneld with EnableNFTables.
var FlannelTables = []nft.Op{
	{Verb: nft.Del, Kind: nft.KindTable, Family: nft.IPv4, Table: "flannel-ipv4"},
	{Verb: nft.Del, Kind: nft.KindTable, Family: nft.IPv6, Table: "flannel-ipv6"},
}

// FlannelOps are the ops that remove flannel's chains and the jumps to them. Other rules stay.
func FlannelOps(have values.Ruleset) []values.Op {
	var ops []values.Op
	for _, v6 := range []bool{false, true} {
		for _, t := range *have.Family(v6) {
			var jumps, chains []values.Op
			for _, c := range t.Chains {
				for _, r := range c.Rules {
					if j, ok := r.Target.(values.Jump); ok && slices.Contains(flannelChains, j.Chain) && !slices.Contains(flannelChains, c.Name) {
						jumps = append(jumps, values.Op{V6: v6, Table: t.Name, Chain: c.Name, Verb: values.Delete, Rule: r})
					}
				}
				if slices.Contains(flannelChains, c.Name) {
					chains = append(chains, values.Op{V6: v6, Table: t.Name, Chain: c.Name, Verb: values.Flush},
						values.Op{V6: v6, Table: t.Name, Chain: c.Name, Verb: values.DelChain})
				}
			}
			ops = append(append(ops, jumps...), chains...)
		}
	}
	return ops
}

// Running returns the ids of the processes whose program has the name.
func Running(proc, name string) []string {
	files, _ := filepath.Glob(filepath.Join(proc, "[0-9]*", "comm")) // the pattern is right
	var pids []string
	for _, f := range files {
		if b, err := os.ReadFile(f); err == nil && strings.TrimSpace(string(b)) == name {
			pids = append(pids, filepath.Base(filepath.Dir(f)))
		}
	}
	return pids
}

// FlannelLeft says which rules of flannel are in force beside ours.
func FlannelLeft(have values.Ruleset) []string {
	var out []string
	for _, op := range FlannelOps(have) {
		if op.Verb == values.DelChain {
			out = append(out, "iptables chain "+op.Table+" "+op.Chain)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// FlannelTablesLeft is the same for nf_tables.
func FlannelTablesLeft(all []kernelnft.BaseChain) []string {
	var out []string
	for _, c := range all {
		for _, op := range FlannelTables {
			if c.Family == op.Family && c.Table == op.Table {
				out = append(out, fmt.Sprintf("table %s %s", c.Family, c.Table))
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// WarnFlannel adds what a flannel left behind to the warnings.
func WarnFlannel(out, left []string) []string {
	if len(left) == 0 {
		return out
	}
	return append(out, "flannel's rules are still here and do what weft's do a second time: "+strings.Join(left, ", ")+
		". When flanneld runs here no more, remove them: weft cleanup --flannel")
}
