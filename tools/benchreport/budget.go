package main

import (
	"fmt"
	"io"
	"strconv"
	"strings"
)

// budget is a limit on a metric, or on the ratio of two.
type budget struct {
	title       string
	ours, other string // "NAME:metric"; other is "" without a ratio
	most        bool   // the limit is the most it may be, else the least
	limit       float64
	optional    bool
}

// parseBudget reads "title=NAME:metric<=limit"; ok is false for what is no budget.
func parseBudget(arg string) (b budget, ok bool) {
	arg, b.optional = strings.CutSuffix(arg, "?")
	what, limit, ok := strings.Cut(arg, "<=")
	b.most = ok
	if !ok {
		if what, limit, ok = strings.Cut(arg, ">="); !ok {
			return b, false
		}
	}
	title, metric, ok := strings.Cut(what, "=")
	if !ok {
		return b, false
	}
	// Names of benchmarks hold slashes; the second one begins at the last "/Benchmark".
	b.title, b.ours = title, metric
	if i := strings.LastIndex(metric, "/Benchmark"); i > 0 {
		b.ours, b.other = metric[:i], metric[i+1:]
	}
	var err error
	b.limit, err = strconv.ParseFloat(limit, 64)
	return b, err == nil && strings.Contains(b.ours, ":")
}

// print says what was measured, and whether that is within the budget. It reports whether anything was.
func (b budget) print(w io.Writer, results map[string]float64) bool {
	v, ok := results[b.ours]
	if b.other != "" {
		other, ok2 := results[b.other]
		ok = ok && ok2 && other != 0
		if ok {
			v /= other
		}
	}
	sign := ">="
	if b.most {
		sign = "<="
	}
	if !ok {
		fmt.Fprintf(w, "%-56s not measured: %s %s\n", b.title, b.ours, b.other)
		return b.optional
	}
	verdict := "ok"
	if b.most && v > b.limit || !b.most && v < b.limit {
		verdict = "MISSED"
	}
	fmt.Fprintf(w, "%-56s %12.4g %12s %8s\n", b.title, v, fmt.Sprintf("%s %g", sign, b.limit), verdict)
	return true
}

// metrics takes the values and units of a line of go test -bench.
func metrics(results map[string]float64, name string, f []string) {
	for i := 0; i+1 < len(f); i += 2 {
		if v, err := strconv.ParseFloat(f[i], 64); err == nil {
			results[name+":"+f[i+1]] = v
		}
	}
}
