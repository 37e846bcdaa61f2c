package xt

import (
	"fmt"
	"testing"

	"weft/internal/xt"
)

// TestParts: the parts together are the ops, none is much too large, each leads to chains that are there already, and what leads into the new
// chains comes in the last.
func TestParts(t *testing.T) {
	jump := func(chain string) xt.Rule { return xt.Rule{Target: xt.Jump{Chain: chain}} }
	var want xt.Ruleset
	want.V4.Add("nat", "PREROUTING", jump("WEFT-SERVICES"))
	want.V4.Add("nat", "WEFT-OLD", jump("WEFT-SVC-7"))
	for i := range 1500 {
		svc := fmt.Sprintf("WEFT-SVC-%d", i)
		want.V4.Add("nat", "WEFT-SERVICES", jump(svc))
		for j := range 3 {
			sep := fmt.Sprintf("WEFT-SEP-%d-%d", i, j)
			want.V4.Add("nat", svc, jump(sep))
			want.V4.Add("nat", sep, xt.Rule{Target: xt.Accept})
		}
	}
	var have xt.Ruleset
	have.V4.Add("nat", "WEFT-OLD", xt.Rule{Target: xt.Accept})
	have.V4.Add("nat", "WEFT-GONE", xt.Rule{Target: xt.Accept})
	ops := xt.Diff(want, have)
	all := parts(ops)
	n := 0
	there := map[string]bool{"WEFT-OLD": true}
	for i, part := range all {
		n += len(part)
		if i < len(all)-2 && len(part) > partSize {
			t.Errorf("part %d has %d ops", i, len(part))
		}
		for _, o := range part {
			there[o.Chain] = there[o.Chain] || o.Verb == xt.NewChain
			if o.Chain == "PREROUTING" || o.Chain == "WEFT-OLD" || o.Chain == "WEFT-GONE" {
				if i < len(all)-1 {
					t.Fatalf("%v in part %d of %d", o, i, len(all))
				}
			}
		}
		for _, o := range part {
			if j, ok := o.Rule.Target.(xt.Jump); ok && !there[j.Chain] {
				t.Fatalf("part %d: %v leads to what is not there", i, o)
			}
		}
		have.V4 = xt.Apply(have.V4, part)
	}
	if left := xt.Diff(want, have); n != len(ops) || len(left) > 0 {
		t.Fatalf("%d ops of %d, left to do: %d", n, len(ops), len(left))
	}
	if len(all) < 8 {
		t.Errorf("%d parts", len(all))
	}
}
