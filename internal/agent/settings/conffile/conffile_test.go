package conffile_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"weft/internal/agent/settings/conffile"
)

func TestParse(t *testing.T) {
	got, err := conffile.Parse("f", []byte("# what\nproxy-mode: iptables\nip-masq: no\nnon-masquerade-cidr:\n- 10.0.0.0/8\n- fd00::/8\nmtu-probe: 30s\niface: \"\"\n"))
	want := []conffile.Entry{
		{Key: "proxy-mode", Values: []string{"iptables"}, Line: 2},
		{Key: "ip-masq", Values: []string{"no"}, Line: 3},
		{Key: "non-masquerade-cidr", Values: []string{"10.0.0.0/8", "fd00::/8"}, List: true, Line: 4},
		{Key: "mtu-probe", Values: []string{"30s"}, Line: 7},
		{Key: "iface", Values: []string{""}, Line: 8},
	}
	if d := cmp.Diff(want, got); err != nil || d != "" {
		t.Fatalf("%v\n%s", err, d)
	}
	for _, empty := range []string{"", "\n", "# only a comment\n", "---\n"} {
		if got, err := conffile.Parse("f", []byte(empty)); err != nil || len(got) != 0 {
			t.Errorf("%q: %v, %v", empty, got, err)
		}
	}
}

func TestRefused(t *testing.T) {
	for text, want := range map[string]string{
		"a: 1\na: 2\n":           "f:2: a: the key is in line 1 already",
		"a:\n":                   "f:1: a: the key has no value",
		"\na: {b: c}\n":          "f:2: a: want a value or a list",
		"a: [[1]]\n":             "f:1: a: want a value or a list",
		"- a\n":                  "f:1: want lines",
		"just text":              "f:1: want lines",
		"--proxy-mode: iptables": "f:1: --proxy-mode: write the flag's name without dashes: proxy-mode",
		"a: &x 1\nb: *x\n":       "f:2: b: aliases are not read",
		"a: 1\n---\nb: 2\n":      "more than one document",
		"a: 1\n\tb: 2\n":         "f: yaml: ",
		"? [a]\n: b\n":           "f:1: a key is the name",
	} {
		_, err := conffile.Parse("f", []byte(text))
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

// FuzzParse: no panic, every entry has a key and a line, no key twice.
func FuzzParse(f *testing.F) {
	f.Add([]byte("proxy-mode: iptables\nnon-masquerade-cidr: [10.0.0.0/8]\n"))
	f.Add([]byte("a: &x [1]\nb: *x\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := conffile.Parse("f", data)
		if err != nil {
			return
		}
		seen := map[string]bool{}
		for _, e := range got {
			if e.Key == "" || e.Line < 1 || seen[e.Key] || !e.List && len(e.Values) != 1 {
				t.Fatalf("%+v", got)
			}
			seen[e.Key] = true
		}
	})
}
