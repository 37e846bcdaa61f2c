package probe_test

import (
	"context"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"weft/internal/kernel/netns"
	"weft/internal/kernel/probe"
)

// TestHostRoutes: routes of others are read as they are, ours and those of devices left out are not, and each change is heard of.
func TestHostRoutes(t *testing.T) {
	netns.Need(t)
	ip := func(command string) {
		t.Helper()
		if out, err := exec.Command("ip", strings.Fields(command)...).CombinedOutput(); err != nil {
			t.Fatalf("ip %s: %v\n%s", command, err, out)
		}
	}
	ip("link add hr0 type veth peer name hr1")
	t.Cleanup(func() { ip("link del hr0") }) // the namespace is the other tests' too
	ip("link set hr1 up")
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	ch, err := probe.WatchRoutes(ctx, 119)
	if err != nil {
		t.Fatal(err)
	}
	read := func() []string {
		all, err := probe.HostRoutes(119, func(r probe.Route) bool { return r.Dev == "hr1" })
		if err != nil {
			t.Fatal(err)
		}
		var out []string
		for _, r := range all {
			if r.Dst.Addr().Is4() {
				out = append(out, r.Dst.String()+" "+r.Via.String()+" "+r.Dev)
			}
		}
		slices.Sort(out)
		return out
	}
	for _, x := range []struct{ command, want string }{
		{"link set hr0 up", ""},
		{"addr add 172.17.42.31/16 dev hr0", "172.17.0.0/16 invalid IP hr0"},
		{"route add 172.20.1.0/24 via 172.17.42.32", "172.17.0.0/16 invalid IP hr0|172.20.1.0/24 172.17.42.32 hr0"},
		{"route add blackhole 172.20.2.0/24", "172.17.0.0/16 invalid IP hr0|172.20.1.0/24 172.17.42.32 hr0|172.20.2.0/24 invalid IP "},
		{"route del blackhole 172.20.2.0/24", "172.17.0.0/16 invalid IP hr0|172.20.1.0/24 172.17.42.32 hr0"},
		{"route replace 172.20.1.0/24 via 172.17.42.33 proto 119", "172.17.0.0/16 invalid IP hr0"}, // ours takes its place
		{"link set hr0 down", ""},
	} {
		time.Sleep(50 * time.Millisecond) // what the step before caused
		for len(ch) > 0 {
			<-ch
		}
		ip(x.command)
		deadline := time.After(30 * time.Second)
		for x.want != "" || x.command == "link set hr0 down" {
			if strings.Join(read(), "|") == x.want {
				break
			}
			select {
			case <-ch:
			case <-deadline:
				t.Fatalf("ip %s: have %q, want %q", x.command, read(), x.want)
			}
		}
	}
	time.Sleep(50 * time.Millisecond)
	for len(ch) > 0 {
		<-ch
	}
	ip("link set hr0 up")
	ip("route add 172.20.3.0/24 dev hr1 proto 119")
	if got := strings.Join(read(), "|"); strings.Contains(got, "172.20.3.0") {
		t.Errorf("our own route is read: %s", got)
	}
}
