package main

import (
	"encoding/json"
	"strings"
	"testing"
)

// TestFailureEndsWithItsReason: what failed stands before logs of hundreds of lines, and once more after them.
func TestFailureEndsWithItsReason(t *testing.T) {
	var in strings.Builder
	say := func(e event) {
		e.Package, e.Test = "weft/test/x", "TestX"
		b, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		in.Write(append(b, '\n'))
	}
	say(event{Action: "output", Output: "=== RUN   TestX\n"})
	say(event{Action: "output", Output: "    x_test.go:7: 70 of 8446 lost\n"})
	say(event{Action: "output", Output: "        from a to b: 35\n"})
	say(event{Action: "output", Output: "    labtest.go:125: kube-node1 agent:\n"})
	for range 100 {
		say(event{Action: "output", Output: "        level=INFO msg=applied\n"})
	}
	say(event{Action: "output", Output: "--- FAIL: TestX (1.00s)\n"})
	say(event{Action: "fail", Elapsed: 1})
	var out strings.Builder
	r := &report{out: &out, output: map[string][]string{}}
	if err := r.read(strings.NewReader(in.String())); err != nil {
		t.Fatal(err)
	}
	const end = "level=INFO msg=applied\n    x_test.go:7: 70 of 8446 lost\n        from a to b: 35\n--- FAIL: TestX (1.00s)\n"
	if !strings.HasSuffix(out.String(), end) {
		t.Errorf("the end:\n%s", out.String()[max(0, out.Len()-400):])
	}
	if n := strings.Count(out.String(), "level=INFO"); n != 100 {
		t.Errorf("%d of 100 lines of the log are printed", n)
	}
	if r.close(nil) {
		t.Error("a failure is taken for a success")
	}
}
