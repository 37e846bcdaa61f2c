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

	"weft/internal/agent/rundir"
	kernelnft "weft/internal/kernel/nft"
	"weft/internal/nft"
	values "weft/internal/xt"
)

// flannelChains are the iptables chains that flanneld makes and leaves behind. It makes FLANNEL-FWD in table filter, and looks for it in nat
// too.
var flannelChains = []string{"FLANNEL-POSTRTG", "FLANNEL-FWD"}

// flannelTables are the tables of flanneld with EnableNFTables.
var flannelTables = []nft.Op{
	{Verb: nft.Del, Kind: nft.KindTable, Family: nft.IPv4, Table: "flannel-ipv4"},
	{Verb: nft.Del, Kind: nft.KindTable, Family: nft.IPv6, Table: "flannel-ipv6"},
}

// flannelOps are the ops that remove flannel's chains and the jumps to them. Other rules stay.
func flannelOps(have values.Ruleset) []values.Op {
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

// cleanFlannel removes flannel's rules when the agent's own do their work.
func (o cleanup) cleanFlannel(ctx context.Context) error {
	if pids := running("/proc", "flanneld"); len(pids) > 0 {
		return fmt.Errorf("flanneld runs here (process %s) and would put its rules back: stop it first", strings.Join(pids, ", "))
	}
	body, err := rundir.Ask(ctx, o.runDir, "/status")
	if err != nil {
		return fmt.Errorf("the agent's rules must be in place before flannel's go: %w", err)
	}
	var s Status
	if err := json.Unmarshal(body, &s); err != nil {
		return fmt.Errorf("read the agent's status: %w", err)
	}
	if !s.Converged {
		return errors.New("the agent's rules must be in place before flannel's go: weft status says not converged, see why there")
	}
	return errors.Join(o.tables(flannelTables...), o.chains(ctx, flannelOps))
}

// running returns the ids of the processes whose program has the name.
func running(proc, name string) []string {
	files, _ := filepath.Glob(filepath.Join(proc, "[0-9]*", "comm")) // the pattern is right
	var pids []string
	for _, f := range files {
		if b, err := os.ReadFile(f); err == nil && strings.TrimSpace(string(b)) == name {
			pids = append(pids, filepath.Base(filepath.Dir(f)))
		}
	}
	return pids
}

// flannelLeft says which rules of flannel are in force beside ours.
func flannelLeft(have values.Ruleset) []string {
	var out []string
	for _, op := range flannelOps(have) {
		if op.Verb == values.DelChain {
			out = append(out, "iptables chain "+op.Table+" "+op.Chain)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// flannelTablesLeft is the same for nf_tables.
func flannelTablesLeft(all []kernelnft.BaseChain) []string {
	var out []string
	for _, c := range all {
		for _, op := range flannelTables {
			if c.Family == op.Family && c.Table == op.Table {
				out = append(out, fmt.Sprintf("table %s %s", c.Family, c.Table))
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// warnFlannel adds what a flannel left behind to the warnings.
func warnFlannel(out, left []string) []string {
	if len(left) == 0 {
		return out
	}
	return append(out, "flannel's rules are still here and do what weft's do a second time: "+strings.Join(left, ", ")+
		". When flanneld runs here no more, remove them: weft cleanup --flannel")
}
