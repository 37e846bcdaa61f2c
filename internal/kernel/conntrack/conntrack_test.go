package conntrack

import (
	"net"
	"net/netip"
	"os"
	"os/exec"
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
	run(t, `ip link set lo up; ip addr add 192.0.2.1/32 dev lo; ip route add 10.9.9.0/24 dev lo
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
	all, err := List(unix.AF_INET, unix.IPPROTO_UDP)
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
	if n, err := Delete(translated[:1]); n != 1 || err != nil {
		t.Fatalf("deleted %d: %v", n, err)
	}
	if n, err := Delete(translated); n != 1 || err != nil {
		t.Fatalf("deleted %d, one was gone: %v", n, err)
	}
	if all, err = List(unix.AF_INET, unix.IPPROTO_UDP); err != nil || len(all) != 1 || all[0].Translated() {
		t.Errorf("left: %+v, %v", all, err)
	}
	if tcp, err := List(unix.AF_INET, unix.IPPROTO_TCP); err != nil || len(tcp) > 0 {
		t.Errorf("TCP: %+v, %v", tcp, err)
	}
	if v6, err := List(unix.AF_INET6, unix.IPPROTO_UDP); err != nil || len(v6) > 0 {
		t.Errorf("IPv6: %+v, %v", v6, err)
	}
}

// TestSuccessor checks that a flow that took the place of a listed one stays.
func TestSuccessor(t *testing.T) {
	flows(t)
	all, err := List(unix.AF_INET, unix.IPPROTO_UDP)
	if err != nil || len(all) == 0 {
		t.Fatal(all, err)
	}
	before := strings.Count(run(t, "conntrack -L -p udp 2>/dev/null"), "\n")
	for i := range all {
		all[i].id = []byte{1, 2, 3, 4}
	}
	if n, err := Delete(all); n != 0 || err != nil {
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
