// Command testreport reads the output of "go test -json" on standard input, prints a line for each package, the output of
// what failed, and a closing count. It fails when a test failed, or was skipped and is not on the list of accepted skips.
//
// The list has one "package test reason..." a line; # begins a comment.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"sort"
	"strings"
)

type event struct {
	Action, Package, Test, Output, ImportPath string
	Elapsed                                   float64
}

type report struct {
	out                     io.Writer
	output                  map[string][]string
	passed, failed, skipped int
	skips                   []string
	bad                     bool
}

func main() {
	list := flag.String("skips", "", "file of accepted skips")
	flag.Parse()
	r := &report{out: os.Stdout, output: map[string][]string{}}
	if err := r.read(os.Stdin); err != nil {
		fmt.Fprintln(os.Stderr, "testreport:", err)
		os.Exit(2)
	}
	accepted, err := readSkips(*list)
	if err != nil {
		fmt.Fprintln(os.Stderr, "testreport:", err)
		os.Exit(2)
	}
	if !r.close(accepted) {
		os.Exit(1)
	}
}

func (r *report) read(in io.Reader) error {
	sc := bufio.NewScanner(in)
	sc.Buffer(make([]byte, 1<<20), 64<<20)
	for sc.Scan() {
		var e event
		if err := json.Unmarshal(sc.Bytes(), &e); err != nil {
			fmt.Fprintln(r.out, sc.Text()) // the go command's own messages are not JSON
			continue
		}
		r.event(e)
	}
	return sc.Err()
}

func (r *report) event(e event) {
	id := e.Package + " " + e.Test
	switch e.Action {
	case "output":
		r.output[id] = append(r.output[id], e.Output)
	case "build-output":
		fmt.Fprint(r.out, e.Output)
	case "build-fail":
		r.bad = true
	case "pass", "fail", "skip":
		if e.Test == "" {
			r.pkg(e, id)
			return
		}
		r.test(e, id)
	}
}

func (r *report) pkg(e event, id string) {
	if e.Action == "fail" {
		r.bad = true
		fmt.Fprint(r.out, strings.Join(r.output[id], ""))
	}
	if e.Action != "skip" {
		fmt.Fprintf(r.out, "%-5s %6.1fs %s\n", e.Action, e.Elapsed, e.Package)
	}
}

func (r *report) test(e event, id string) {
	switch e.Action {
	case "pass":
		r.passed++
	case "fail":
		r.failed++
		r.fail(id)
	case "skip":
		r.skipped++
		r.skips = append(r.skips, id+"\t"+strings.TrimSpace(strings.Join(r.output[id], " ")))
	}
	delete(r.output, id)
}

// fail prints what a failed test said, and the end of it, where a log of many lines is cut off, says once more what failed.
func (r *report) fail(id string) {
	said, verdict := r.output[id], ""
	if n := len(said); n > 0 && strings.HasPrefix(strings.TrimSpace(said[n-1]), "--- FAIL") {
		said, verdict = said[:n-1], said[n-1]
	}
	fmt.Fprintf(r.out, "--- FAIL %s\n%s", id, strings.Join(said, ""))
	if again := complaints(said); len(said) > len(again)+10 {
		fmt.Fprint(r.out, strings.Join(again, ""))
	}
	fmt.Fprint(r.out, verdict)
}

// place is how go test marks the first line of what a test's own file reports.
var place = regexp.MustCompile(`^ +\w+_test\.go:\d+: `)

// complaints are the last reports of a test's own file, each without its end where it is long.
func complaints(said []string) []string {
	const reports, lines = 3, 8
	var all [][]string
	ours := false
	for _, line := range said {
		switch first := place.MatchString(line); {
		case first:
			ours = true
			all = append(all, []string{line})
		case other.MatchString(line):
			ours = false
		case ours && len(all[len(all)-1]) < lines:
			all[len(all)-1] = append(all[len(all)-1], line)
		}
	}
	return slices.Concat(all[max(0, len(all)-reports):]...)
}

// other is how it marks any file's.
var other = regexp.MustCompile(`^ +\w+\.go:\d+: |^=== `)

// close prints the skips and the closing line and reports whether all is well.
func (r *report) close(accepted map[string]string) bool {
	sort.Strings(r.skips)
	for _, s := range r.skips {
		id, text, _ := strings.Cut(s, "\t")
		if reason, ok := accepted[id]; ok {
			fmt.Fprintf(r.out, "skip  %s: accepted: %s\n", id, reason)
			continue
		}
		r.bad = true
		fmt.Fprintf(r.out, "SKIP  %s is not on the list of accepted skips: %s\n", id, text)
	}
	fmt.Fprintf(r.out, "%d passed, %d failed, %d skipped\n", r.passed, r.failed, r.skipped)
	return !r.bad && r.failed == 0 && r.passed > 0
}

func readSkips(path string) (map[string]string, error) {
	accepted := map[string]string{}
	if path == "" {
		return accepted, nil
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read accepted skips: %w", err)
	}
	for line := range strings.Lines(string(text)) {
		line, _, _ = strings.Cut(line, "#")
		f := strings.Fields(line)
		if len(f) == 0 {
			continue
		}
		if len(f) < 3 {
			return nil, fmt.Errorf("%s: line %q: want \"package test reason\"", path, strings.TrimSpace(line))
		}
		accepted[f[0]+" "+f[1]] = strings.Join(f[2:], " ")
	}
	return accepted, nil
}
