package weft_test

import (
	"flag"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite the tracked lists")

// TestDependencies compares the modules that the node agent's binary is made of with a tracked list, so that growth shows in review,
// and refuses the server's world in it.
func TestDependencies(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "-f", "{{with .Module}}{{.Path}}{{end}}", "./cmd/weft").Output()
	if err != nil {
		t.Fatalf("list dependencies: %v", err)
	}
	modules := strings.Fields(string(out))
	slices.Sort(modules)
	modules = slices.Compact(modules)
	for _, banned := range []string{"k8s.io/kubernetes", "k8s.io/apiserver", "go.etcd.io/etcd/server/v3"} {
		if slices.Contains(modules, banned) {
			t.Errorf("weft links %s: only weft-server may", banned)
		}
	}
	const file = "docs/dependencies.txt"
	got := strings.Join(modules, "\n") + "\n"
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("the modules of cmd/weft are not those of %s: look at the difference, then: go test . -update\n%s", file, got)
	}
}
