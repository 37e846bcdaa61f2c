package nft_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"weft/internal/api"
	"weft/internal/kernel/netns"
	kernel "weft/internal/kernel/nft"
	"weft/internal/nft"
	"weft/internal/proxy"
	"weft/internal/proxy/nftables"
)

func TestMain(m *testing.M) { os.Exit(netns.Main(m)) }

// tester is what *testing.T and *testing.B share.
type tester interface {
	testing.TB
	Skip(args ...any)
}

// open returns a Conn in the test's network namespace, with no table weft in it before and after.
func open(t tester) *kernel.Conn {
	t.Helper()
	netns.Need(t)
	c, err := kernel.Open()
	if err != nil {
		t.Fatal(err)
	}
	gone := func() {
		table := nft.New()
		if have, err := c.Read(table.Family, table.Name); err != nil || have == nil {
			return
		}
		_ = c.Apply([]nft.Op{{Verb: nft.Del, Kind: nft.KindTable, Family: table.Family, Table: table.Name}})
	}
	gone()
	t.Cleanup(func() { gone(); _ = c.Close() })
	return c
}

func everything(t testing.TB) nft.Table {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "..", "nft", "testdata", "everything.nft"))
	if err != nil {
		t.Fatal(err)
	}
	table := parseTable(t, string(b))
	// nft 1.0.6 runs out of registers on this one; the kernel does not.
	r, err := nft.ParseRule("update @recent6 { ip6 saddr . ip6 daddr . meta l4proto . th dport timeout 1s : fd00::1 . 80 }")
	if err != nil {
		t.Fatal(err)
	}
	c := table.Chain("e-1")
	c.Rules = append(c.Rules, r)
	return table
}

func parseTable(t testing.TB, text string) nft.Table {
	t.Helper()
	table, err := nft.ParseTable(text)
	if err != nil {
		t.Fatal(err)
	}
	table.Sort()
	return table
}

func read(t testing.TB, c *kernel.Conn) *nft.Table {
	t.Helper()
	have, err := c.Read(nft.INet, nft.TableName)
	if err != nil {
		t.Fatal(err)
	}
	return have
}

// program brings the kernel to the table and checks that it then is there.
func program(t testing.TB, c *kernel.Conn, want nft.Table) {
	t.Helper()
	if err := c.Apply(nft.Diff(want, read(t, c))); err != nil {
		t.Fatal(err)
	}
	have := read(t, c)
	if have == nil {
		t.Fatal("no table after Apply")
	}
	if d := cmp.Diff(want.String(), have.String()); d != "" {
		t.Fatalf("read differs from plan (-plan +read):\n%s", d)
	}
	if ops := nft.Diff(want, have); len(ops) != 0 {
		t.Fatalf("second Diff is not empty: %v", ops)
	}
}

func run(t testing.TB, line string) {
	t.Helper()
	if out, err := exec.Command("sh", "-ec", line).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", line, err, out)
	}
}

func TestEverything(t *testing.T) {
	c := open(t)
	if have := read(t, c); have != nil {
		t.Fatalf("a table before the first Apply: %s", have)
	}
	want := everything(t)
	program(t, c, want)
	other, err := kernel.Open() // after a restart
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if ops := nft.Diff(want, read(t, other)); len(ops) != 0 {
		t.Errorf("Diff after a restart: %v", ops)
	}
	// nft(8) can list what we made: nft 1.0.6 crashes on some types.
	run(t, "nft list ruleset >/dev/null")
}

func TestTheft(t *testing.T) {
	c := open(t)
	want := everything(t)
	for _, theft := range []string{
		"nft delete table inet weft",
		"nft flush table inet weft",
		"nft flush ruleset",
		"nft flush map inet weft eps4",
		"nft delete element inet weft vips4 '{ 10.254.0.1 . tcp . 443 }'",
		"nft add element inet weft nets4 '{ 172.16.0.1-172.16.0.7 }'",
		"nft add element inet weft allowed4 '{ 1.2.3.4 . udp . 80 . 10.0.0.0/8 }'",
		"nft 'flush chain inet weft n2-4; add rule inet weft n2-4 drop'",
		"nft insert rule inet weft prerouting tcp dport 22 log accept",
		"nft insert rule inet weft prerouting ct mark set 7",
		"nft insert rule inet weft prerouting meta mark set ct mark",
		"nft add rule inet weft prerouting limit rate 1/second accept",
		"nft add chain inet weft stranger '{ type filter hook input priority 5; policy accept; }'",
		"nft add set inet weft stranger '{ type ether_addr; elements = { 02:00:00:00:00:01 }; }'",
		"nft add chain inet weft raw '{ policy accept; }'",
		"nft 'delete chain inet weft raw; add chain inet weft raw { type filter hook input priority 0; policy accept; }'",
	} {
		program(t, c, want)
		run(t, theft)
		if ops := nft.Diff(want, read(t, c)); len(ops) == 0 {
			t.Errorf("%s: not seen", theft)
		}
		program(t, c, want)
	}
}

func TestNothingElseIsTouched(t *testing.T) {
	c := open(t)
	run(t, "nft add table inet other; nft add chain inet other c '{ type filter hook input priority 0; }'; nft add rule inet other c accept;"+
		"nft add table ip weft; nft add set ip weft s '{ type ipv4_addr; elements = { 1.2.3.4 }; }'")
	defer run(t, "nft delete table inet other; nft delete table ip weft")
	list := func() string {
		out, err := exec.Command("sh", "-c", "nft list table inet other; nft list table ip weft").CombinedOutput()
		if err != nil {
			t.Fatal(err)
		}
		return string(out)
	}
	before := list()
	program(t, c, everything(t))
	program(t, c, nft.New())
	if d := cmp.Diff(before, list()); d != "" {
		t.Errorf("other tables changed:\n%s", d)
	}
}

// TestRefused checks that one object the kernel refuses is found and named, and that the rest is programmed.
func TestRefused(t *testing.T) {
	c := open(t)
	want := everything(t)
	good := want.Set("eps4")
	types := good.Key
	for i := range 3000 {
		key := nft.TupleBuilder(nil).Addr(netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)})).Proto(6).Port(80).Num(0)
		good.Elements = append(good.Elements, nft.Element{Key: key.Tuple(), Data: nft.TupleBuilder(nil).Addr(netip.MustParseAddr("10.0.0.1")).Port(1).Tuple()})
	}
	bad := nft.Element{Key: good.Elements[1500].Key[:8] + "\x00\x51\x00\x00\x00\x00\x00\x00", Data: "short"}
	good.Elements = append(good.Elements, bad)
	vips := want.Set("vips4")
	for i := range 1000 {
		key := nft.TupleBuilder(nil).Addr(netip.AddrFrom4([4]byte{10, 2, byte(i >> 8), byte(i)})).Proto(6).Port(80)
		vips.Elements = append(vips.Elements, nft.Element{Key: key.Tuple(), Verdict: nft.Verdict{Kind: nft.Goto, Chain: "n2-4"}})
	}
	vips.Elements[500].Verdict.Chain = "nowhere"
	nowhere := vips.Elements[500].Key.Text(vips.Key)
	want.Sort()
	vips = want.Set("vips4")
	stray := nft.Chain{Name: "stray", Rules: []nft.Rule{{Statements: []nft.Statement{nft.Verdict{Kind: nft.Jump, Chain: "nowhere"}}}}}
	want.Chains = append(want.Chains, stray)
	want.Sort()
	err := c.Apply(nft.Diff(want, nil))
	if err == nil {
		t.Fatal("the kernel took a value of 5 bytes")
	}
	if _, ok := errors.AsType[*kernel.Refused](err); !ok {
		t.Fatalf("error %v holds no Refused", err)
	}
	if n := strings.Count(err.Error(), "apply \""); n != 3 {
		t.Errorf("%d objects refused, want 3: %v", n, err)
	}
	if !errors.Is(err, unix.ENOENT) || !strings.Contains(err.Error(), bad.Key.Text(types)) || !strings.Contains(err.Error(), nowhere) {
		t.Errorf("error does not name the objects: %v", err)
	}
	have := read(t, c)
	if n := len(have.Set("eps4").Elements); n != len(good.Elements)-1 {
		t.Errorf("%d elements programmed of %d", n, len(good.Elements))
	}
	if n := len(have.Set("vips4").Elements); n != len(vips.Elements)-1 {
		t.Errorf("%d verdicts programmed of %d", n, len(vips.Elements))
	}
	if have.Chain("prerouting") == nil || len(have.Chain("prerouting").Rules) != len(want.Chain("prerouting").Rules) {
		t.Error("chains are not programmed")
	}
}

// TestLoop gives the kernel what it refuses only when it looks at the transaction as a whole.
func TestLoop(t *testing.T) {
	c := open(t)
	want := everything(t)
	jump := func(name, to string) nft.Chain {
		return nft.Chain{Name: name, Rules: []nft.Rule{{Statements: []nft.Statement{nft.Verdict{Kind: nft.Jump, Chain: to}}}}}
	}
	base := jump("begin", "x")
	base.Base = nft.Base{Type: nft.Filter, Hook: nft.Input}
	want.Chains = append(want.Chains, base, jump("x", "y"), jump("y", "x"))
	want.Sort()
	err := c.Apply(nft.Diff(want, nil))
	if err == nil {
		t.Fatal("the kernel took a loop")
	}
	if have := read(t, c); have == nil || len(have.Chain("prerouting").Rules) != len(want.Chain("prerouting").Rules) {
		t.Errorf("the rest is not programmed: %v", err)
	}
}

func TestWatch(t *testing.T) {
	c := open(t)
	ctx, cancel := context.WithCancel(context.Background())
	changed, err := c.Watch(ctx, nft.INet, nft.TableName)
	if err != nil {
		t.Fatal(err)
	}
	quiet := func(what string) {
		t.Helper()
		select {
		case <-changed:
			t.Errorf("%s: an event", what)
		case <-time.After(50 * time.Millisecond):
		}
	}
	program(t, c, everything(t))
	quiet("our own change")
	run(t, "nft add table inet other; nft delete table inet other; nft add table ip weft; nft delete table ip weft")
	quiet("other tables")
	for _, theft := range []string{
		"nft flush ruleset", "nft flush map inet weft eps4", "nft flush chain inet weft raw",
		"nft add element inet weft nets4 '{ 172.16.0.1 }'",
	} {
		run(t, theft)
		begin := time.Now()
		select {
		case <-changed:
		case <-time.After(30 * time.Second):
			t.Fatalf("%s: no event", theft)
		}
		program(t, c, everything(t))
		t.Logf("%s: healed %v after the event", theft, time.Since(begin))
		if who := c.Writer(); !strings.HasSuffix(who, "(nft)") {
			t.Errorf("%s: done by %q", theft, who)
		}
		for len(changed) > 0 {
			<-changed
		}
	}
	cancel()
	for range changed { // until it is closed
	}
}

func TestProbe(t *testing.T) {
	c := open(t)
	features, err := c.Probe()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range features {
		t.Log(f)
		if f.Err != nil {
			t.Errorf("not here: %s", f)
		}
	}
	if f, err := c.Hashing(); err != nil || f.Err != nil || f.Config != "CONFIG_NFT_HASH" {
		t.Errorf("hashing: %v, %v", f, err)
	}
	out, err := exec.Command("nft", "list", "tables").Output()
	if err != nil || strings.Contains(string(out), "probe") {
		t.Errorf("tables after Probe: %s %v", out, err)
	}
	table := parseTable(t, "table inet weft {\n chain a {\n jump nowhere\n }\n}")
	if err := c.Check(nft.Diff(table, nil)); !errors.Is(err, unix.ENOENT) {
		t.Errorf("Check of a jump to nowhere: %v", err)
	}
}

// services are n services with k endpoints each.
func services(n, k int) []api.ServicePort {
	out := make([]api.ServicePort, n)
	for i := range out {
		s := api.ServicePort{
			Name: api.ServicePortName{Namespace: "default", Name: fmt.Sprintf("s%d", i)}, Protocol: api.TCP, Port: 80,
			ClusterIPs: []netip.Addr{netip.AddrFrom4([4]byte{10, 254, byte(i >> 8), byte(i)})},
		}
		for j := range k {
			n := i*k + j
			a := netip.AddrFrom4([4]byte{172, byte(16 + n>>16), byte(n >> 8), byte(n)})
			s.Endpoints = append(s.Endpoints, api.Endpoint{Addr: netip.AddrPortFrom(a, 8080), Ready: true})
		}
		out[i] = s
	}
	return out
}

var node = proxy.Node{Name: "n", ClusterCIDRs: []netip.Prefix{netip.MustParsePrefix("172.16.0.0/12")}}

func plan(m *nft.Merge, all []api.ServicePort) []nft.Op {
	var p nftables.Planner
	f := make(map[string]nft.Table, len(all)+1)
	f[""] = p.Base(node)
	plans := p.For(node)
	for _, s := range all {
		f[s.Name.String()] = plans.Plan(s)
	}
	return m.Update(f)
}

func newTable() nft.Op {
	return nft.Op{Verb: nft.Add, Kind: nft.KindTable, Family: nft.INet, Table: nft.TableName}
}

// TestIncremental follows changes of services and checks that the kernel has what the plan from nothing has.
func TestIncremental(t *testing.T) {
	c := open(t)
	m := nft.NewMerge(nft.INet, nft.TableName)
	all := services(50, 5)
	if err := c.Apply(append([]nft.Op{newTable()}, plan(m, all)...)); err != nil {
		t.Fatal(err)
	}
	for i := range 30 {
		s := all[i%len(all)]
		switch i % 5 {
		case 0:
			s.Endpoints = s.Endpoints[:i%4]
		case 1:
			s.Endpoints = append(s.Endpoints[1:len(s.Endpoints):len(s.Endpoints)], api.Endpoint{Addr: netip.MustParseAddrPort("172.31.0.1:1"), Ready: true})
		case 2:
			s.NodePort = uint16(30000 + i)
			s.AffinitySeconds = i
		case 3:
			s.ClusterIPs = nil
		case 4:
			s.ExternalLocal, s.External = true, []netip.Addr{netip.MustParseAddr("192.0.2.1")}
		}
		if err := c.Apply(m.Set(s.Name.String(), nftables.Planner{}.Plan(node, s))); err != nil {
			t.Fatalf("step %d: %v", i, err)
		}
		want := m.Table()
		if ops := nft.Diff(want, read(t, c)); len(ops) != 0 {
			t.Fatalf("step %d: kernel and plan differ: %v", i, ops)
		}
	}
}
