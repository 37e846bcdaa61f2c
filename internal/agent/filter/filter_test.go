package filter

import (
	"context"
	"log/slog"
	"strings"
	"testing"

	"weft/internal/agent/loop"
	"weft/internal/xt"
)

// host is one whose rules are what is restored.
type host struct{ rules xt.Ruleset }

func (h *host) Read(context.Context) (xt.Ruleset, error) {
	return xt.Ruleset{V4: xt.Apply(h.rules.V4, nil), V6: xt.Apply(h.rules.V6, nil)}, nil
}

func (h *host) Apply(_ context.Context, ops []xt.Op) error {
	for _, o := range ops {
		t := h.rules.Family(o.V6)
		*t = xt.Apply(*t, []xt.Op{o})
	}
	return nil
}

// TestSparing: rules are made where somebody uses table filter, and what stops packets before them is named.
func TestSparing(t *testing.T) {
	var want xt.Ruleset
	want.Family(false).Add("filter", "FORWARD", xt.Rule{Target: xt.Jump{Chain: "WEFT-FORWARD"}})
	want.Family(false).Add("filter", "WEFT-FORWARD", xt.Rule{Target: xt.Accept})
	for save, made := range map[string]bool{
		"":                                       false,
		"*filter\n:FORWARD DROP [0:0]\nCOMMIT\n": true,
		"*filter\n:FORWARD ACCEPT [0:0]\n-A FORWARD -j REJECT\nCOMMIT\n":                        true,
		"*filter\n:FORWARD ACCEPT [0:0]\n:INPUT ACCEPT [0:0]\nCOMMIT\n":                         false,
		"*nat\n:POSTROUTING ACCEPT [0:0]\n-A POSTROUTING -s 10.0.0.0/8 -j MASQUERADE\nCOMMIT\n": false,
	} {
		tables, err := xt.Parse(save)
		if err != nil {
			t.Fatal(err)
		}
		k := &host{rules: xt.Ruleset{V4: tables}}
		f := Filter{K: k, Name: "iptables"}
		if _, err := f.Apply(t.Context(), slog.New(slog.DiscardHandler), loop.ByTime, want, true); err != nil {
			t.Fatalf("%s: %v", save, err)
		}
		if got := f.Wanted().V4 != nil; got != made || !f.OK() {
			t.Errorf("rules made: %v, want %v, with\n%s", got, made, save)
		}
		if stop, _, _ := f.Found(); (len(stop) > 0) != strings.Contains(save, "REJECT") {
			t.Errorf("%q stop packets, with\n%s", stop, save)
		}
	}
}
