package nft

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"weft/internal/kernel/netns"
)

func TestMain(m *testing.M) { os.Exit(netns.Main(m)) }

func everything(t testing.TB) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "everything.nft"))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestEverythingParses(t *testing.T) {
	text := everything(t)
	table, err := ParseTable(text)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(text, table.String()); d != "" {
		t.Errorf("parsed and printed again:\n%s", d)
	}
}

// nftCheck feeds text to nft(8).
func nftCheck(t *testing.T, text string) {
	t.Helper()
	netns.Need(t)
	cmd := exec.Command("nft", "-c", "-f", "-")
	cmd.Stdin = strings.NewReader(text)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("nft -c: %v\n%s\n%s", err, out, text)
	}
}

func TestEverythingIsAccepted(t *testing.T) { nftCheck(t, everything(t)) }

// TestOpsAreAccepted feeds the commands of a Diff to nft(8): what a log shows can be typed.
func TestOpsAreAccepted(t *testing.T) {
	want, err := ParseTable(everything(t))
	if err != nil {
		t.Fatal(err)
	}
	want.Sort()
	var lines []string
	for _, op := range Diff(want, nil) {
		lines = append(lines, op.Commands()...)
	}
	nftCheck(t, strings.Join(lines, "\n")+"\n")
}

func TestRuleLaw(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	for range 20000 {
		want := randomRule(r)
		got, err := ParseRule(want.String())
		if err != nil {
			t.Fatal(err)
		}
		if !SameRules([]Rule{want}, []Rule{got}) {
			t.Fatalf("%q parses as %q: %#v", want, got, got)
		}
	}
}

func TestTableLaw(t *testing.T) {
	r := rand.New(rand.NewPCG(2, 1))
	for range 500 {
		want := randomTable(r)
		got, err := ParseTable(want.String())
		if err != nil {
			t.Fatal(err)
		}
		if ops := Diff(want, &got); len(ops) > 0 {
			t.Fatalf("parsed table differs by %v\n%s", ops, want)
		}
	}
}

func TestParseErrors(t *testing.T) {
	for text, want := range map[string]string{
		"frobnicate":                             "unknown words",
		"ip saddr 10.0.0.1/8":                    "without host bits",
		"ip saddr fd00::1":                       "of that family",
		"dnat ip to [fd00::1]:80":                "other family",
		"th dport 65536":                         "number from 0 to 65535",
		"ct state != new":                        "can't be compared",
		"iifname eth0":                           "in quotes",
		`comment "a" accept`:                     "after the comment",
		`iifname "eth0`:                          "not closed",
		"ip daddr . th dport 1.2.3.4":            "can't be compared",
		"update @s { ip saddr timeout 3h }":      "seconds",
		"meta mark & 0 == 1":                     "mask",
		"ip daddr vmap @1s":                      "name of a set",
		"numgen random mod 0 vmap @s":            "mod 0",
		"jump":                                   "ends too early",
		"iifname \"0123456789abcdef\"":           "1 to 15",
		"reject with tears":                      "unknown answer",
		"ip saddr . frobnicate @s":               "unknown words",
		"update @s { ip saddr : 10.0.0.1 80 }":   "want",
		"meta mark set meta mark + 1":            "operator",
		"fib daddr type local ip daddr 10.0.0.x": "family",
	} {
		if r, err := ParseRule(text); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: %v, error %v, want one with %q", text, r, err, want)
		}
	}
}

func FuzzParseRule(f *testing.F) {
	r := rand.New(rand.NewPCG(3, 1))
	for range 100 {
		f.Add(randomRule(r).String())
	}
	f.Fuzz(func(t *testing.T, text string) {
		one, err := ParseRule(text)
		if err != nil {
			return
		}
		two, err := ParseRule(one.String())
		if err != nil || !SameRules([]Rule{one}, []Rule{two}) {
			t.Fatalf("%q: parses as %q and that as %q, %v", text, one, two, err)
		}
	})
}

func FuzzParseTable(f *testing.F) {
	f.Add(everything(f))
	r := rand.New(rand.NewPCG(4, 1))
	for range 20 {
		f.Add(randomTable(r).String())
	}
	f.Fuzz(func(t *testing.T, text string) {
		one, err := ParseTable(text)
		if err != nil {
			return
		}
		two, err := ParseTable(one.String())
		if err != nil {
			t.Fatalf("%q prints as %q: %v", text, one, err)
		}
		if d := cmp.Diff(one.String(), two.String()); d != "" {
			t.Fatal(d)
		}
	})
}

func TestDiffLaws(t *testing.T) {
	for seed := range uint64(3000) {
		r := rand.New(rand.NewPCG(seed, 5))
		want, have := randomTable(r), randomTable(r)
		if r.IntN(10) == 0 && len(have.Sets) > 0 {
			have.Sets[0].Timeout = 7 // another declaration
			if have.Sets[0].Elements == nil && r.IntN(2) == 0 {
				have.Sets[0].Key = nil // of types we don't know
			}
		}
		if ops := Diff(want, &want); len(ops) != 0 {
			t.Fatalf("seed %d: Diff(s, s) = %v", seed, ops)
		}
		for _, from := range []*Table{&have, nil} {
			ops := Diff(want, from)
			if got := Apply(from, ops...); got.String() != want.String() {
				t.Fatalf("seed %d: want\n%shave\n%sops %v\ngot\n%s", seed, want, have, ops, got)
			}
		}
	}
}

// TestMergeLaws changes owners at random: the ops lead a kernel from union to union, and the union does not depend on the way.
func TestMergeLaws(t *testing.T) {
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 6))
		m := NewMerge(INet, TableName)
		now := map[string]Table{}
		kernel := &Table{Family: INet, Name: TableName}
		for step := range 10 {
			changes := map[string]Table{}
			for range 1 + r.IntN(3) {
				owner := fmt.Sprintf("o%d", r.IntN(4))
				changes[owner] = randomTable(r)
				if r.IntN(4) == 0 {
					changes[owner] = Table{}
				}
			}
			maps.Copy(now, changes)
			kernel = Apply(kernel, m.Update(changes)...)
			if d := cmp.Diff(Union(now).String(), kernel.String()); d != "" {
				t.Fatalf("seed %d step %d (-union +kernel):\n%s", seed, step, d)
			}
			if d := cmp.Diff(Union(now).String(), m.Table().String()); d != "" {
				t.Fatalf("seed %d step %d (-union +merge):\n%s", seed, step, d)
			}
		}
		for owner := range now {
			kernel = Apply(kernel, m.Set(owner, Table{})...)
		}
		if len(kernel.Chains)+len(kernel.Sets)+len(m.chains)+len(m.sets)+len(m.Owners()) > 0 {
			t.Fatalf("seed %d: left over: %s", seed, kernel)
		}
	}
}
