package cleanup

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"weft/internal/agent/rules"
	"weft/internal/agent/rundir"
	kernelnft "weft/internal/kernel/nft"
	"weft/internal/nft"
	values "weft/internal/xt"
)

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
