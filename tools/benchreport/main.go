// Command benchreport reads the output of "go test -bench" on standard input, passes it on, and prints at the end the ratios of
// benchmarks that belong together: ours to the baseline measured in the same run. The machine's noise is in both.
//
// Pairs are arguments of the form "title=OURS|BASELINE" with names as go test prints them, without the -N of GOMAXPROCS. Budgets are
// arguments of the form "title=NAME:metric<=limit" or ">=", where NAME:metric may be divided by another: "a:m/b:m<=0.5". A budget that is
// missed is said so; the exit code tells only of measurements that are not there, as the machine may be busy. One that ends in "?" may be
// missing: a program to compare with is not there.
package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
)

func main() {
	results, err := read(os.Stdin, os.Stdout)
	if err != nil {
		fmt.Fprintln(os.Stderr, "benchreport:", err)
		os.Exit(1)
	}
	failed := false
	fmt.Printf("\n%-56s %12s %12s %8s\n", "ratio", "ours", "baseline", "ratio")
	for _, arg := range os.Args[1:] {
		if b, ok := parseBudget(arg); ok {
			failed = !b.print(os.Stdout, results) || failed
			continue
		}
		title, pair, ok := strings.Cut(arg, "=")
		ours, base, ok2 := strings.Cut(pair, "|")
		if !ok || !ok2 {
			fmt.Fprintf(os.Stderr, "benchreport: %q: want title=OURS|BASELINE\n", arg)
			os.Exit(2)
		}
		a, b := results[ours], results[base]
		if a == 0 || b == 0 {
			fmt.Printf("%-56s missing: %s %g, %s %g\n", title, ours, a, base, b)
			failed = true
			continue
		}
		fmt.Printf("%-56s %12s %12s %8.2f\n", title, duration(a), duration(b), a/b)
	}
	if failed {
		os.Exit(1)
	}
}

// read returns nanoseconds per operation by name; of several runs the fastest, which the machine's other work disturbed least.
func read(in io.Reader, out io.Writer) (map[string]float64, error) {
	results := map[string]float64{}
	sc := bufio.NewScanner(in)
	sc.Buffer(make([]byte, 1<<20), 1<<20)
	for sc.Scan() {
		fmt.Fprintln(out, sc.Text())
		f := strings.Fields(sc.Text())
		if len(f) < 4 || !strings.HasPrefix(f[0], "Benchmark") {
			continue
		}
		name := f[0]
		if i := strings.LastIndexByte(name, '-'); i > 0 {
			name = name[:i]
		}
		metrics(results, name, f[2:])
		if f[3] != "ns/op" {
			continue
		}
		ns, err := strconv.ParseFloat(f[2], 64)
		if err != nil {
			continue
		}
		if old, ok := results[name]; !ok || ns < old {
			results[name] = ns
		}
	}
	return results, sc.Err()
}

func duration(ns float64) string {
	switch {
	case ns >= 1e9:
		return fmt.Sprintf("%.2f s", ns/1e9)
	case ns >= 1e6:
		return fmt.Sprintf("%.2f ms", ns/1e6)
	}
	return fmt.Sprintf("%.1f us", ns/1e3)
}
