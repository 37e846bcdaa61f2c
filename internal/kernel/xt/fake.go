package xt

import (
	"context"
	"sync"

	"weft/internal/xt"
)

// Fake is rules in memory, for tests of what applies rules. The zero Fake has none.
type Fake struct {
	mu    sync.Mutex
	rules xt.Ruleset
	Ops   []xt.Op // everything applied so far
}

// Read returns the rules as iptables-save would.
func (f *Fake) Read(context.Context) (xt.Ruleset, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return xt.Ruleset{V4: xt.Apply(f.rules.V4, nil), V6: xt.Apply(f.rules.V6, nil)}, nil
}

// Apply does the ops.
func (f *Fake) Apply(_ context.Context, ops []xt.Op) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, o := range ops {
		t := f.rules.Family(o.V6)
		*t = xt.Apply(*t, []xt.Op{o})
	}
	f.Ops = append(f.Ops, ops...)
	return nil
}
