package xt

import (
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"
)

var comparers = []cmp.Option{
	cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }), cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b }),
}

var update = flag.Bool("update", false, "write the golden files")

// TestParseSave reads what real iptables-save programs printed and prints it again.
func TestParseSave(t *testing.T) {
	files, err := filepath.Glob("testdata/save/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no test data", err)
	}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		tables, err := Parse(string(text))
		if err != nil {
			t.Errorf("%s: %v", f, err)
			continue
		}
		var want []string
		for line := range strings.Lines(string(text)) {
			if line[0] != '#' {
				want = append(want, strings.TrimPrefix(line, "[0:0] "))
			}
		}
		if d := cmp.Diff(strings.Join(want, ""), tables.String()); d != "" {
			t.Errorf("%s (-save +ours):\n%s", f, d)
		}
		checkLaw(t, tables)
	}
}

// checkLaw checks Parse(String(x)) == x and Diff(x, x) == nothing.
func checkLaw(t *testing.T, x Tables) {
	t.Helper()
	again, err := Parse(x.String())
	if err != nil {
		t.Fatalf("parse of what was printed: %v\n%s", err, x)
	}
	if !reflect.DeepEqual(policies(x), policies(again)) {
		t.Fatalf("Parse(String(x)) is not x (-x +parsed):\n%s\n%s", cmp.Diff(x, again, comparers...), x)
	}
}

// policies gives built-in chains the policy that String prints for those without.
func policies(t Tables) Tables {
	for i := range t {
		for j := range t[i].Chains {
			if c := &t[i].Chains[j]; c.Policy == "" && Builtin(c.Name) {
				c.Policy = "ACCEPT"
			}
		}
	}
	return t
}

func TestTyped(t *testing.T) {
	pfx := netip.MustParsePrefix
	for line, want := range map[string]Rule{
		`-d 10.254.247.121/32 -p tcp -m comment --comment "default/my-nginx-service:" -m tcp --dport 8080 -j REDIRECT --to-ports 50948`: {
			Dst: IP(netip.MustParseAddr("10.254.247.121")), Proto: Proto{Name: "tcp"},
			Match: []Match{Comment("default/my-nginx-service:"), DPort("tcp", 8080)}, Target: Redirect{Port: 50948},
		},
		`-s 172.16.28.0/24 ! -o docker0 -j MASQUERADE`: {
			Src: Net(pfx("172.16.28.0/24")), Out: Iface{"docker0", true}, Target: Masquerade{},
		},
		`-s 172.16.0.0/12 ! -d 224.0.0.0/4 -j MASQUERADE --random-fully`: {
			Src: Net(pfx("172.16.0.0/12")), Dst: NotNet(pfx("224.0.0.0/4")), Target: Masquerade{RandomFully: true},
		},
		`-m mark --mark 0x4000/0x4000 -j RETURN`:  {Match: []Match{Mark{0x4000, 0x4000, false}}, Target: Return},
		`-m mark ! --mark 0x1 -g WEFT-A`:          {Match: []Match{Mark{1, 0xffffffff, true}}, Target: Jump{"WEFT-A", true}},
		`-i lo -j MARK --set-xmark 0x4000/0x4000`: {In: Iface{Name: "lo"}, Target: SetMark{0x4000, 0x4000}},
		`-m comment --comment "" -j DROP`:         {Match: []Match{Comment("")}, Target: Drop},
		`-m comment --comment "a \"b\" \\ it\'s"`: {Match: []Match{Comment(`a "b" \ it's`)}},
		`-m multiport --dports 80,90 -j ACCEPT`:   {Match: []Match{Raw("-m multiport --dports 80,90")}, Target: Accept},
		`-j LOG --log-prefix "a b: "`:             {Target: RawTarget(`-j LOG --log-prefix "a b: "`)},
		`-p tcp -m tcp --tcp-flags SYN SYN -j DROP`: {
			Proto: Proto{Name: "tcp"}, Match: []Match{Raw("-m tcp --tcp-flags SYN SYN")}, Target: Drop,
		},
		`! -p udp -m udp ! --dport 53:55`: {
			Proto: Proto{"udp", true}, Match: []Match{Ports{Proto: "udp", Dst: PortRange{53, 55, true}}},
		},
		`-m addrtype ! --src-type LOCAL --dst-type LOCAL -j RETURN`: {Match: []Match{AddrType{"LOCAL", "LOCAL", true, false}}, Target: Return},
		`-m statistic --mode random --probability 0.33333333349`:    {Match: []Match{Probability(1.0 / 3)}},
		`-j DNAT --to-destination [fd00::1]:80`:                     {Target: DNAT{To: netip.MustParseAddrPort("[fd00::1]:80")}},
		`-j DNAT --to-destination 10.0.0.1-10.0.0.9`:                {Target: RawTarget("-j DNAT --to-destination 10.0.0.1-10.0.0.9")},
	} {
		got, err := ParseRule(line)
		if err != nil {
			t.Errorf("%s: %v", line, err)
			continue
		}
		if d := cmp.Diff(want, got, comparers...); d != "" {
			t.Errorf("%s (-want +got):\n%s", line, d)
		}
		if got.String() != " "+line {
			t.Errorf("%s\nprints as%s", line, got)
		}
	}
}

func TestParseErrors(t *testing.T) {
	for text, want := range map[string]string{
		"-A INPUT -j DROP":                      "TABLE line must come first",
		"*nat\n*nat":                            "line 2",
		"*nat\n:A - [0:0]\n:A - [0:0]":          "comes twice",
		"*nat\n:A":                              "want :CHAIN POLICY",
		"*nat\n-A NONE -j DROP":                 "not declared",
		"*nat\n:A - [0:0]\n-A A -m comment \"x": "not closed",
		"*nat\n:A - [0:0]\n-A A -j A -j A":      "second target",
		"*nat\n:A - [0:0]\n-A A -j":             "wants a target",
		"*nat\n:A - [0:0]\n-I A":                "want -A",
		"*":                                     "no table name",
	} {
		if _, err := Parse(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v, want %q", text, err, want)
		}
	}
}

// TestDiff runs the stories of testdata/diff: want, have, and the ops with the restore input.
func TestDiff(t *testing.T) {
	files, _ := filepath.Glob("testdata/diff/*.txtar")
	if len(files) == 0 {
		t.Fatal("no test data")
	}
	for _, f := range files {
		a, err := txtar.ParseFile(f)
		if err != nil {
			t.Fatal(err)
		}
		part := map[string]string{}
		for _, p := range a.Files {
			part[p.Name] = string(p.Data)
		}
		var want, have Ruleset
		if want.V4, err = Parse(part["want"]); err != nil {
			t.Fatalf("%s: %v", f, err)
		}
		if have.V4, err = Parse(part["have"]); err != nil {
			t.Fatalf("%s: %v", f, err)
		}
		ops := Diff(want, have)
		got := ""
		for _, o := range ops {
			got += o.String() + "\n"
		}
		for i := range a.Files {
			switch p := &a.Files[i]; p.Name {
			case "ops":
				p.Data = []byte(got)
			case "restore":
				p.Data = []byte(RestoreInput(ops, false))
			}
		}
		if *update {
			if err := os.WriteFile(f, txtar.Format(a), 0o644); err != nil {
				t.Fatal(err)
			}
			continue
		}
		for _, p := range a.Files {
			if d := cmp.Diff(part[p.Name], string(p.Data)); d != "" {
				t.Errorf("%s: %s (-golden +got):\n%s", f, p.Name, d)
			}
		}
		after := Ruleset{V4: Apply(have.V4, ops)}
		if again := Diff(want, after); len(again) > 0 {
			t.Errorf("%s: after the ops still wanted:\n%v\nhave\n%s", f, again, after.V4)
		}
	}
}

func TestWalk(t *testing.T) {
	tables, err := Parse(`*nat
:PREROUTING ACCEPT [0:0]
:A - [0:0]
:B - [0:0]
:C - [0:0]
-A PREROUTING -i lo -j RETURN
-A PREROUTING -j A
-A PREROUTING -p tcp -m tcp --dport 80 -j DNAT --to-destination 10.0.0.1:8080
-A A -m mark --mark 0x1 -j DROP
-A A -p tcp -j MARK --set-xmark 0x2/0x2
-A A -m mark --mark 0x2/0x2 -j B
-A A -g C
-A A -j DROP
-A B -m statistic --mode random --probability 0.50000000000 -j DROP
-A B -m foo --bar -j DROP
-A B -j RETURN
-A B -j DROP
-A C -d 10.9.0.0/16 -j ACCEPT
COMMIT
`)
	if err != nil {
		t.Fatal(err)
	}
	p := Packet{Proto: "tcp", Src: netip.MustParseAddrPort("10.1.1.1:999"), Dst: netip.MustParseAddrPort("10.2.2.2:80"), In: "eth0"}
	var got []string
	for _, h := range tables.Walk("nat", "PREROUTING", p) {
		got = append(got, h.String())
	}
	want := []string{
		"-A PREROUTING -j A", "-A A -p tcp -j MARK --set-xmark 0x2/0x2", "-A A -m mark --mark 0x2/0x2 -j B",
		"-A B -m statistic --mode random --probability 0.50000000000 -j DROP", "-A B -m foo --bar -j DROP", "-A B -j RETURN",
		"-A A -g C", "-A PREROUTING -p tcp -m tcp --dport 80 -j DNAT --to-destination 10.0.0.1:8080",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	p.Dst = netip.MustParseAddrPort("10.9.1.1:80")
	hits := tables.Walk("nat", "PREROUTING", p)
	if last := hits[len(hits)-1]; last.Chain != "C" || last.Rule.Target != Accept {
		t.Errorf("last hit is %s", last)
	}
}

func FuzzParse(f *testing.F) {
	files, _ := filepath.Glob("testdata/save/*.txt")
	for _, name := range files {
		if text, err := os.ReadFile(name); err == nil {
			f.Add(string(text))
		}
	}
	f.Fuzz(func(t *testing.T, text string) {
		x, err := Parse(text)
		if err != nil {
			return
		}
		checkLaw(t, x)
		r := Ruleset{V4: x}
		if ops := Diff(r.Ours(), r); len(ops) > 0 {
			t.Fatalf("Diff(x, x) = %v", ops)
		}
	})
}

func FuzzComment(f *testing.F) {
	f.Add("default/a:http")
	f.Add("a\nb\"\\'\x00")
	f.Fuzz(func(t *testing.T, text string) {
		line := Rule{Match: []Match{Comment(text)}, Target: Drop}.String()
		if strings.ContainsAny(line, "\n\r\x00") {
			t.Fatalf("%q can't be a line", line)
		}
		r, err := ParseRule(line)
		if err != nil || len(r.Match) != 1 || r.Target != Drop {
			t.Fatalf("%q read as %+v, %v", line, r, err)
		}
	})
}
