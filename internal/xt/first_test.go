package xt

import "testing"

// TestFirst: a jump that must be first is put back to the beginning when others are before it, and only then.
func TestFirst(t *testing.T) {
	const head = "*nat\n:POSTROUTING ACCEPT [0:0]\n:WEFT-KEEP - [0:0]\n:WEFT-LAST - [0:0]\n"
	const keep, last, foreign = "-A POSTROUTING -j WEFT-KEEP\n", "-A POSTROUTING -j WEFT-LAST\n", "-A POSTROUTING -o eth0 -j MASQUERADE\n"
	var want Ruleset
	want.V4.Add("nat", "POSTROUTING", Rule{Target: Jump{Chain: "WEFT-KEEP"}, First: true}, Rule{Target: Jump{Chain: "WEFT-LAST"}, Last: true})
	want.V4.Add("nat", "WEFT-KEEP")
	want.V4.Add("nat", "WEFT-LAST")
	for _, c := range []struct{ have, then string }{
		{keep + foreign + last, keep + foreign + last},
		{keep + last + foreign, keep + last + foreign}, // being last is no must
		{foreign + keep + last, keep + foreign + last},
		{foreign + foreign + keep + foreign + last, keep + foreign + foreign + foreign + last},
		{last + keep, keep + last},
	} {
		tables, err := Parse(head + c.have + "COMMIT\n")
		if err != nil {
			t.Fatal(err)
		}
		have := Ruleset{V4: tables}
		ops := Diff(want, have)
		have.V4 = Apply(have.V4, ops)
		if got := have.V4.String(); got != head+c.then+"COMMIT\n" {
			t.Errorf("%swith %v became\n%s", c.have, ops, got)
		}
		if more := Diff(want, have); len(more) > 0 {
			t.Errorf("%s: again %v", c.have, more)
		}
		if (c.have == c.then) != (len(ops) == 0) {
			t.Errorf("%s: ops %v", c.have, ops)
		}
	}
}
