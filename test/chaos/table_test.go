package chaos

import (
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// table collects trials by kind of injury, in the order they first came.
type table struct {
	kinds  []string
	trials map[string][]trial
}

func (r *table) add(kind string, t trial) {
	if r.trials == nil {
		r.trials = map[string][]trial{}
	}
	if _, ok := r.trials[kind]; !ok {
		r.kinds = append(r.kinds, kind)
	}
	r.trials[kind] = append(r.trials[kind], t)
}

// quantile of sorted times.
func quantile(sorted []time.Duration, q float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[max(0, int(math.Ceil(q*float64(len(sorted))))-1)]
}

func times(trials []trial) []time.Duration {
	var out []time.Duration
	for _, t := range trials {
		out = append(out, t.took)
	}
	slices.Sort(out)
	return out
}

func ms(d time.Duration) string {
	if d >= time.Second {
		return fmt.Sprintf("%.1f s", d.Seconds())
	}
	return fmt.Sprintf("%.0f ms", float64(d.Microseconds())/1000)
}

// String is the table in Markdown.
func (r *table) String() string {
	var b strings.Builder
	b.WriteString("| injury | times | repaired p50 | p99 | max | packets lost, most of a pair | connections broken |\n")
	b.WriteString("|---|---|---|---|---|---|---|\n")
	kinds := slices.Sorted(slices.Values(r.kinds))
	for _, kind := range kinds {
		all := r.trials[kind]
		t := times(all)
		most, resets := 0, 0
		for _, x := range all {
			most, resets = max(most, x.most), resets+x.resets
		}
		fmt.Fprintf(&b, "| %s | %d | %s | %s | %s | %d | %d |\n", kind, len(all), ms(quantile(t, 0.5)), ms(quantile(t, 0.99)), ms(t[len(t)-1]), most, resets)
	}
	return b.String()
}

// document puts the table into its place in docs/chaos.md when -update is given.
func (r *table) document(t *testing.T, place string) {
	t.Helper()
	if !*update {
		return
	}
	const file = "../../docs/chaos.md"
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(text), "<!-- "+place+" -->\n")
	_, after, ok2 := strings.Cut(rest, "<!-- end -->")
	if !ok || !ok2 {
		t.Fatalf("%s has no place for %s", file, place)
	}
	if err := os.WriteFile(file, []byte(before+"<!-- "+place+" -->\n"+r.String()+"<!-- end -->"+after), 0o644); err != nil {
		t.Fatal(err)
	}
}
