package cli

import (
	"bytes"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"weft/internal/api"
)

func snapshot() api.Snapshot {
	service := func(name string, port uint16, proto api.Protocol) api.ServicePort {
		return api.ServicePort{
			Name: api.ServicePortName{Namespace: "default", Name: name}, Protocol: proto, Port: port,
			ClusterIPs: []netip.Addr{netip.MustParseAddr("10.254.0.9")},
		}
	}
	return api.Snapshot{
		Services: []api.ServicePort{service("web", 8080, api.TCP), service("dns", 53, api.UDP), service("dns", 53, api.TCP), service("two", 80, api.TCP), service("two", 443, api.TCP)},
		Pods:     []api.Pod{{Namespace: "default", Name: "nginx", IPs: []netip.Addr{netip.MustParseAddr("172.16.28.5")}}},
	}
}

func TestDestination(t *testing.T) {
	for _, c := range []struct{ to, proto, want, err string }{
		{"web", "tcp", "10.254.0.9:8080", ""},
		{"default/web:8080", "tcp", "10.254.0.9:8080", ""},
		{"dns", "udp", "10.254.0.9:53", ""},
		{"nginx:80", "tcp", "172.16.28.5:80", ""},
		{"192.0.2.1:443", "tcp", "192.0.2.1:443", ""},
		{"[fd00::1]:443", "tcp", "[fd00::1]:443", ""},
		{"two", "tcp", "", "has the tcp ports 80, 443: name one"},
		{"web:81", "tcp", "", "has the tcp ports 8080"},
		{"web", "udp", "", "no service with a cluster address and no pod"},
		{"nginx", "tcp", "", "give a port"},
		{"192.0.2.1", "tcp", "", "give a port"},
		{"web:0", "tcp", "", `port "0": want a number from 1 to 65535`},
		{"web:x", "tcp", "", `port "x"`},
	} {
		got, err := destination(snapshot(), c.to, c.proto)
		switch {
		case c.err == "" && (err != nil || got.String() != c.want):
			t.Errorf("%s %s: %v, %v, want %s", c.proto, c.to, got, err, c.want)
		case c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)):
			t.Errorf("%s %s: error %v, want one with %q", c.proto, c.to, err, c.err)
		}
	}
}

func TestMainExitCodes(t *testing.T) {
	for _, c := range []struct {
		args []string
		code int
		want string // on the stream that gets the answer
	}{
		{[]string{"version"}, 0, "weft "},
		{[]string{"completion", "bash"}, 0, "complete"},
		{[]string{"nope"}, 2, `unknown command "nope"`},
		{[]string{"agent", "--nope"}, 2, "unknown flag: --nope"},
		{[]string{"agent", "--attach=wire"}, 1, "--attach=wire: want routed or bridge"},
		{[]string{"explain", "a"}, 2, "accepts 2 arg(s)"},
		{[]string{"explain", "a", "b", "--proto=x"}, 1, "--proto=x: want tcp, udp or sctp"},
		{[]string{"capture", "--host=x"}, 1, "--host=x: want an address"},
		{[]string{"status", "--run-dir=/nonexistent"}, 1, "does it run on this host?"},
	} {
		var out, errs bytes.Buffer
		code := Main(c.args, nil, &out, &errs)
		text := errs.String()
		if c.code == 0 {
			text = out.String()
		}
		if code != c.code || !strings.Contains(text, c.want) {
			t.Errorf("weft %v: exit code %d, %q; want %d, %q", c.args, code, text, c.code, c.want)
		}
		if c.code != 0 && strings.Count(strings.TrimSpace(errs.String()), "\n") != 0 {
			t.Errorf("weft %v: more than one line: %q", c.args, errs.String())
		}
	}
}

func TestGraphArgs(t *testing.T) {
	argv, err := graphArgs("default/a,web", true, nil)
	if err != nil || !slices.Equal(argv, []string{"weft", "explain", "default/a", "web", "--graph", "svg"}) {
		t.Errorf("%v, %v", argv, err)
	}
	if _, err := graphArgs("a", false, nil); err == nil || !strings.Contains(err.Error(), "want FROM,TO") {
		t.Errorf("error %v", err)
	}
}
