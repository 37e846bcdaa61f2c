// Package weft_test holds the tests of the house itself: which package may import which.
package weft_test

import (
	"encoding/json"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// floors lists every package tree of the module with its floor (docs/architecture.md). A new package must be added here.
var floors = map[string]int{
	"internal/api": 1, "internal/netstate": 1, "internal/nft": 1, "internal/xt": 1, "internal/packet": 1, "internal/maglev": 1,

	"internal/attach": 2, "internal/explain": 2, "internal/ipam": 2, "internal/lease": 2, "internal/masq": 2,
	"internal/overlay": 2, "internal/policy": 2, "internal/proxy": 2,

	"internal/kernel": 3, "internal/relay": 3, "internal/runtime": 3, "internal/store": 3, "internal/trace": 3,

	"internal/agent": 4, "internal/cli": 4, "internal/cni": 4, "internal/images": 4, "internal/lab": 4, "internal/node": 4, "internal/replay": 4,
	"internal/server": 4, "cmd": 4, "test": 4, "docs": 4,
}

// pure lists what floors 1 and 2 may not import: planning is a function of values.
var pure = []string{"net", "os", "log", "log/slog", "context", "io/ioutil", "syscall"}

// only lists modules with the trees that may import them. The server is upstream's world, where everything goes.
var only = map[string][]string{
	"k8s.io/client-go":               {"internal/store/kube", "internal/server"},
	"github.com/vishvananda/netlink": {"internal/kernel"},
	"k8s.io/kubernetes":              {"internal/server"},
	"k8s.io/apiserver":               {"internal/server"},
	"go.etcd.io/etcd/server":         {"internal/server"},
	"go.etcd.io/etcd/client":         {"internal/store/etcd", "internal/server"},
}

// wiring is the package that composes those below it, so none of them may lean on it.
const wiring = "internal/agent"

type pkg struct {
	ImportPath string
	Imports    []string
}

func TestFloors(t *testing.T) {
	for _, p := range listPackages(t) {
		rel := strings.TrimPrefix(p.ImportPath, "weft/")
		tree, floor := treeOf(rel)
		if tree == "" {
			if p.ImportPath != "weft" {
				t.Errorf("%s: on no floor: add its tree to floors in floors_test.go and to docs/architecture.md", rel)
			}
			continue
		}
		for _, imp := range p.Imports {
			checkOwn(t, rel, tree, floor, imp)
			checkForeign(t, rel, floor, imp)
		}
	}
}

// checkOwn refuses imports of a higher floor and sideways ones. On the top floor programs compose programs; a package may
// import its own parents and what lies below it.
func checkOwn(t *testing.T, rel, tree string, floor int, imp string) {
	t.Helper()
	target, ok := strings.CutPrefix(imp, "weft/")
	if !ok {
		return
	}
	other, otherFloor := treeOf(target)
	switch {
	case otherFloor > floor:
		t.Errorf("%s (floor %d) imports %s (floor %d): up", rel, floor, target, otherFloor)
	case otherFloor == floor && floor < 4 && other != tree:
		t.Errorf("%s imports %s: sideways on floor %d", rel, target, floor)
	case target == wiring && isParent(wiring, rel):
		t.Errorf("%s imports %s, which wires it: hand in what it needs", rel, target)
	case other == tree && floor < 4 && !isParent(target, rel) && !isParent(rel, target):
		t.Errorf("%s imports its sibling %s", rel, target)
	}
}

func checkForeign(t *testing.T, rel string, floor int, imp string) {
	t.Helper()
	if floor <= 2 && slices.Contains(pure, imp) {
		t.Errorf("%s (floor %d) imports %s: planners and values are pure", rel, floor, imp)
	}
	for module, trees := range only {
		if imp != module && !strings.HasPrefix(imp, module+"/") {
			continue
		}
		if !slices.ContainsFunc(trees, func(tree string) bool { return rel == tree || isParent(tree, rel) }) {
			t.Errorf("%s imports %s: only %s may", rel, imp, strings.Join(trees, ", "))
		}
	}
}

func isParent(parent, child string) bool { return strings.HasPrefix(child, parent+"/") }

func treeOf(rel string) (string, int) {
	for tree := rel; tree != "."; tree = filepath.Dir(tree) {
		if f, ok := floors[tree]; ok {
			return tree, f
		}
	}
	return "", 0
}

func listPackages(t *testing.T) []pkg {
	t.Helper()
	cmd := exec.Command("go", "list", "-e", "-json=ImportPath,Imports", "./...")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("list packages: %v", err)
	}
	var all []pkg
	for dec := json.NewDecoder(strings.NewReader(string(out))); dec.More(); {
		var p pkg
		if err := dec.Decode(&p); err != nil {
			t.Fatalf("decode go list: %v", err)
		}
		all = append(all, p)
	}
	return all
}
