package conntrack

import (
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"weft/internal/kernel/netns"
)

func TestMain(m *testing.M) { os.Exit(netns.Main(m)) }

// run runs a command of the test's namespace.
func run(t testing.TB, line string) string {
	t.Helper()
	out, err := exec.Command("sh", "-c", line).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", line, err, out)
	}
	return string(out)
}

// flows sets connection tracking up and makes two flows to 10.9.9.9, translated to loopback, and one that is not translated.
func flows(t testing.TB) {
	t.Helper()
	netns.Need(t)
	run(t, `ip link set lo up; ip addr replace 192.0.2.1/32 dev lo; ip route replace 10.9.9.0/24 dev lo; nft flush ruleset; conntrack -F 2>/dev/null
nft 'table ip t { chain o { type nat hook output priority -100; ip daddr 10.9.9.9 udp dport 53 dnat to 127.0.0.1:5300; }; }'`)
	c, err := net.ListenPacket("udp", "127.0.0.1:5300")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	for _, to := range []string{"10.9.9.9:53", "10.9.9.9:53", "127.0.0.1:5300"} {
		d, err := net.Dial("udp", to)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = d.Close() })
		if _, err := d.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
	}
}

func TestListAndDelete(t *testing.T) {
	flows(t)
	all, err := new(Table).List(Query{Family: unix.AF_INET, Protocol: unix.IPPROTO_UDP})
	if err != nil {
		t.Fatal(err)
	}
	var translated []Flow
	for _, f := range all {
		if f.Translated() {
			translated = append(translated, f)
			if f.To != netip.MustParseAddrPort("10.9.9.9:53") || f.Answerer != netip.MustParseAddrPort("127.0.0.1:5300") {
				t.Errorf("have %+v", f)
			}
		}
	}
	if len(all) != 3 || len(translated) != 2 {
		t.Fatalf("%d flows, %d translated: %+v\n%s", len(all), len(translated), all, run(t, "conntrack -L 2>&1"))
	}
	if n, err := new(Table).Delete(translated[:1]); n != 1 || err != nil {
		t.Fatalf("deleted %d: %v", n, err)
	}
	if n, err := new(Table).Delete(translated); n != 1 || err != nil {
		t.Fatalf("deleted %d, one was gone: %v", n, err)
	}
	if all, err = new(Table).List(Query{Family: unix.AF_INET, Protocol: unix.IPPROTO_UDP}); err != nil || len(all) != 1 || all[0].Translated() {
		t.Errorf("left: %+v, %v", all, err)
	}
	if tcp, err := new(Table).List(Query{Family: unix.AF_INET, Protocol: unix.IPPROTO_TCP}); err != nil || len(tcp) > 0 {
		t.Errorf("TCP: %+v, %v", tcp, err)
	}
	if v6, err := new(Table).List(Query{Family: unix.AF_INET6, Protocol: unix.IPPROTO_UDP}); err != nil || len(v6) > 0 {
		t.Errorf("IPv6: %+v, %v", v6, err)
	}
}

// TestQueries compares what the kernel chooses with what is chosen here.
func TestQueries(t *testing.T) {
	flows(t)
	for text, want := range map[string]int{
		"10.9.9.9:53": 2, "10.9.9.9:54": 0, "10.9.9.8:53": 0, "127.0.0.1:5300": 1, "10.9.9.9:0": 2, ":53": 2, ":5300": 1, "": 3,
		"10.9.9.9:53 127.0.0.1:5300": 3, ":53 127.0.0.1:5300 10.9.9.9:54": 3, ":53 10.9.9.9:53": 2, "10.9.9.9:0 10.9.9.9:53": 2,
	} {
		q := Query{Family: unix.AF_INET, Protocol: unix.IPPROTO_UDP, To: destinations(t, text)}
		have, err := new(Table).List(q)
		if err != nil || len(have) != want {
			t.Errorf("to %q: %+v, %v", text, have, err)
		}
		all, _, err := read(request(messageGet, q.Family, unix.NLM_F_DUMP), q.wanted(netip.AddrPort{}))
		if err != nil || len(all) != want {
			t.Errorf("to %q: chosen here: %+v, %v", text, all, err)
		}
		sum := 0
		for _, to := range q.walks(1<<20, 1) {
			n := 0
			err := q.request(to).ExecuteIter(unix.NETLINK_NETFILTER, 0, func([]byte) bool { n++; return true })
			if sum += n; err != nil {
				t.Errorf("to %q: %v", text, err)
			}
		}
		if overlaps := text == ":53 10.9.9.9:53" || text == "10.9.9.9:0 10.9.9.9:53"; sum != want && !overlaps {
			t.Errorf("to %q: the kernel chooses %d, want %d", text, sum, want)
		}
	}
}

// TestWalksAfterReading: what was read last time says what it is worth to read, not entries of other protocols.
func TestWalksAfterReading(t *testing.T) {
	flows(t)
	var table Table
	q := Query{Family: unix.AF_INET, Protocol: unix.IPPROTO_UDP}
	if _, err := table.List(q); err != nil || table.seen[[2]uint8{q.Family, q.Protocol}] != 3 {
		t.Fatal(table.seen, err)
	}
	q.To = destinations(t, "10.9.9.9:53 127.0.0.1:5300")
	if n := table.Walks(q); n != 1 {
		t.Errorf("%d walks", n)
	}
}

func destinations(t *testing.T, text string) (out []netip.AddrPort) {
	t.Helper()
	for f := range strings.FieldsSeq(text) {
		host, port, _ := strings.Cut(f, ":")
		a, err := netip.ParseAddr(host)
		p, err2 := strconv.ParseUint(port, 10, 16)
		if err2 != nil || host != "" && err != nil {
			t.Fatal(f, err, err2)
		}
		out = append(out, netip.AddrPortFrom(a, uint16(p)))
	}
	return out
}

// TestWalks: the kernel is asked for single destinations when the table is so full that this is worth a walk for each.
func TestWalks(t *testing.T) {
	for _, c := range []struct {
		to           string
		flows, steps int
		want         int // walks that ask for one, 0: one walk for all
	}{
		{"", 100_000, 362_144, 0},
		{"10.9.9.9:53", 0, 262_144, 1},
		{"10.9.9.9:53 :53", 1 << 20, 1, 0}, // what both choose would be listed twice
		{"10.9.9.9:53 10.9.9.9:54", 1000, 300_000, 0},
		{"10.9.9.9:53 10.9.9.9:54", 100_000, 362_144, 2},
		{"10.9.9.9:53 :54 10.9.9.9:55", 100_000, 362_144, 3},
		{"10.9.9.9:53 10.9.9.9:54", 1, 1, 2},
	} {
		q := Query{To: destinations(t, c.to)}
		n := 0
		for _, to := range q.walks(c.flows, c.steps) {
			if to != (netip.AddrPort{}) {
				n++
			}
		}
		if n != c.want {
			t.Errorf("to %q, %d flows, %d steps: %d walks, want %d", c.to, c.flows, c.steps, n, c.want)
		}
	}
}

// TestSuccessor checks that a flow that took the place of a listed one stays.
func TestSuccessor(t *testing.T) {
	flows(t)
	all, err := new(Table).List(Query{Family: unix.AF_INET, Protocol: unix.IPPROTO_UDP})
	if err != nil || len(all) == 0 {
		t.Fatal(all, err)
	}
	before := strings.Count(run(t, "conntrack -L -p udp 2>/dev/null"), "\n")
	for i := range all {
		all[i].id = []byte{1, 2, 3, 4}
	}
	if n, err := new(Table).Delete(all); n != 0 || err != nil {
		t.Errorf("deleted %d: %v", n, err)
	}
	if after := strings.Count(run(t, "conntrack -L -p udp 2>/dev/null"), "\n"); after != before {
		t.Errorf("%d flows, before %d", after, before)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte{2, 0, 0, 0, 8, 0, 1, 0x80, 4, 0, 1, 0x80})
	f.Add([]byte{
		2, 0, 0, 0, 0x34, 0, 1, 0x80, 0x14, 0, 1, 0x80, 8, 0, 1, 0, 1, 2, 3, 4, 8, 0, 2, 0, 5, 6, 7, 8, 0x1c, 0, 2, 0x80,
		5, 0, 1, 0, 17, 0, 0, 0, 6, 0, 2, 0, 0, 53, 0, 0, 6, 0, 3, 0, 0, 54, 0, 0,
	})
	f.Fuzz(func(t *testing.T, m []byte) {
		if x, _, ok := parse(m); ok && (!x.From.IsValid() || !x.To.IsValid() || !x.Answerer.IsValid()) {
			t.Errorf("a flow without addresses: %+v", x)
		}
	})
}
