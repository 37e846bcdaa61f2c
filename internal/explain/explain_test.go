package explain

import (
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"weft/internal/netstate"
	"weft/internal/nft"
	"weft/internal/packet"
	"weft/internal/xt"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// readWorld reads the "node NAME", "pod NAME NETNS" and "iptables NAME" sections of an archive.
func readWorld(t *testing.T, a *txtar.Archive) World {
	t.Helper()
	var w World
	for _, f := range a.Files {
		words := strings.Fields(f.Name)
		switch words[0] {
		case "node", "pod":
			h := &Host{Name: words[1], Pod: words[0] == "pod", State: netstate.New()}
			if h.Pod {
				h.Netns = words[2]
			}
			for line := range strings.Lines(string(f.Data)) {
				o, err := netstate.ParseLine(strings.TrimSpace(line))
				if err != nil {
					t.Fatalf("%s: %v", f.Name, err)
				}
				h.State.Add(o)
			}
			w.Hosts = append(w.Hosts, h)
		case "nft":
			h := w.host(words[1])
			table, err := nft.ParseTable(string(f.Data))
			if err != nil {
				t.Fatalf("%s: %v", f.Name, err)
			}
			h.Rules = append(h.Rules, NFTables{Table: table, Local: h.Local})
		case "iptables":
			h := w.host(words[1])
			tables, err := xt.Parse(string(f.Data))
			if err != nil {
				t.Fatalf("%s: %v", f.Name, err)
			}
			h.Rules = append(h.Rules, IPTables{Rules: xt.Ruleset{V4: tables}, Local: h.Local})
		}
	}
	return w
}

// TestStories walks the packets of every archive in testdata: a section "ask FROM PROTO DST ENDPOINT" is followed by the answer; FROM may
// be CLIENT@NODE.
func TestStories(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no stories: %v", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			a, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			w := readWorld(t, a)
			for i, f := range a.Files {
				words := strings.Fields(f.Name)
				if words[0] != "ask" {
					continue
				}
				answer := ask(t, w, words)
				if *update {
					a.Files[i].Data = []byte(answer)
					continue
				}
				if diff := cmp.Diff(string(f.Data), answer); diff != "" {
					t.Errorf("%s (-want +got):\n%s", f.Name, diff)
				}
			}
			if *update {
				if err := os.WriteFile(file, txtar.Format(a), 0o644); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

func ask(t *testing.T, w World, words []string) string {
	t.Helper()
	if words[1] == "topology" {
		return w.Text()
	}
	want := netip.MustParseAddr(words[4])
	choose := func(all []netip.AddrPort) netip.AddrPort {
		for _, a := range all {
			if a.Addr() == want {
				return a
			}
		}
		return all[0]
	}
	flow := packet.Flow{Proto: words[2], Dst: netip.MustParseAddrPort(words[3])}
	var trace Trace
	var err error
	if client, at, outside := strings.Cut(words[1], "@"); outside {
		flow.Src = netip.AddrPortFrom(netip.MustParseAddr(client), 0)
		trace, err = Arrive(w, at, flow, choose)
	} else {
		trace, err = Walk(w, words[1], flow, choose)
	}
	if err != nil {
		t.Fatalf("ask %v: %v", words, err)
	}
	if svg := trace.SVG(); !strings.HasPrefix(svg, "<svg") || !strings.Contains(svg, string(trace.Verdict)) {
		t.Errorf("ask %v: bad picture", words)
	}
	return trace.Text()
}

func TestWalkRefusesAnUnknownHost(t *testing.T) {
	_, err := Walk(World{Hosts: []*Host{{Name: "a"}}}, "b", packet.Flow{}, nil)
	if err == nil || !strings.Contains(err.Error(), `"b"`) || !strings.Contains(err.Error(), "known are a") {
		t.Fatalf("error %v: want one that names b and what is known", err)
	}
}

func TestWalkEndsInALoop(t *testing.T) {
	state := func(ip, via string) netstate.State {
		return netstate.New(
			netstate.Addr{Dev: "eth0", Prefix: netip.MustParsePrefix(ip + "/24")},
			netstate.Route{Dst: netip.MustParsePrefix("10.9.0.0/16"), Via: netip.MustParseAddr(via), Dev: "eth0"})
	}
	w := World{Hosts: []*Host{{Name: "a", State: state("10.0.0.1", "10.0.0.2")}, {Name: "b", State: state("10.0.0.2", "10.0.0.1")}}}
	_, err := Walk(w, "a", packet.Flow{Proto: "tcp", Dst: netip.MustParseAddrPort("10.9.0.1:80")}, nil)
	if err == nil {
		t.Fatal("a routing loop was not reported")
	}
}
