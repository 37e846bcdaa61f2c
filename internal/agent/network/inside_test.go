package network

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"weft/internal/agent/attachments"
	"weft/internal/agent/loop"
	"weft/internal/attach"
	"weft/internal/kernel"
	"weft/internal/kernel/netns"
	"weft/internal/netstate"
)

// watched is a loop that only watches the inside of pods.
func watched(t *testing.T) (d *Loop, end func()) {
	t.Helper()
	netns.Need(t)
	pods, err := attachments.Open(t.TempDir() + "/attachments.json")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	var all sync.WaitGroup
	d = &Loop{
		log: slog.New(slog.DiscardHandler), pods: pods, inside: map[string]*podNet{}, life: ctx, healing: &loop.Healing{},
		spawn: func(f func() error) { all.Go(func() { _ = f() }) },
	}
	return d, func() {
		stop()
		all.Wait()
	}
}

// sandbox makes a pod's namespace with an interface, as the host's loop does.
func sandbox(t *testing.T, i int) (ns *netns.NS, p attach.Pod, want netstate.State) {
	t.Helper()
	ns, err := netns.New("")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ns.Close() })
	text, err := exec.CommandContext(t.Context(), "sh", "-c", fmt.Sprintf(
		"ip link del out%[1]d 2>/dev/null; ip link add out%[1]d type veth peer name in%[1]d && ip link set out%[1]d up && ip link set in%[1]d netns %[2]s", i, ns.Path())).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	inside(t, ns, fmt.Sprintf("ip link set in%d up name eth0 alias weft:pod", i))
	ip := netip.AddrFrom4([4]byte{10, 7, byte(i >> 8), byte(i)})
	link := netstate.Link{Name: "eth0", Type: netstate.TypeVeth, MTU: 1500, Alias: netstate.AliasPrefix + "pod", Up: true}
	gw := netip.MustParseAddr("10.7.255.1")
	want = netstate.New(link, netstate.Addr{Dev: "eth0", Prefix: netip.PrefixFrom(ip, 32)},
		netstate.Neigh{Dev: "eth0", IP: gw, MAC: "02:00:00:00:00:01"},
		netstate.Route{Dst: netip.MustParsePrefix("0.0.0.0/0"), Via: gw, Dev: "eth0", Onlink: true})
	return ns, attach.Pod{UID: fmt.Sprint("uid", i), Namespace: "default", Name: fmt.Sprint("p", i), Netns: ns.Path()}, want
}

func inside(t *testing.T, ns *netns.NS, command string) {
	t.Helper()
	err := ns.Do(func() error {
		out, err := exec.CommandContext(t.Context(), "sh", "-c", command).CombinedOutput()
		if err != nil {
			return fmt.Errorf("%s: %w: %s", command, err, out)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// trouble is why the inside of a pod, whose own loop runs beside, is not as planned.
func trouble(n *podNet) error {
	_, err := n.state()
	return err
}

// TestInsideIsHealed: what somebody takes away inside a pod is back, what the pod adds for itself stays.
func TestInsideIsHealed(t *testing.T) {
	d, end := watched(t)
	defer end()
	ns, p, want := sandbox(t, 1)
	n := d.enter(p)
	if ops := n.take(t.Context(), want); ops == 0 || trouble(n) != nil {
		t.Fatal(ops, trouble(n))
	}
	look, err := kernel.Open(p.Netns)
	if err != nil {
		t.Fatal(err)
	}
	defer look.Close()
	inside(t, ns, "ip addr add 10.99.0.1/32 dev eth0")
	for _, injury := range []string{
		"ip route del default", "ip addr del 10.7.0.1/32 dev eth0", "ip link set eth0 down", "ip neigh del 10.7.255.1 dev eth0", "ip link set eth0 mtu 900",
		"ip link set eth0 name mine", "ip link set eth0 down && ip link set eth0 name mine",
	} {
		inside(t, ns, injury)
		begun := time.Now()
		for {
			have, err := look.Read(t.Context(), want)
			if err != nil {
				t.Fatal(err)
			}
			missing := false
			for id, o := range want.All() {
				h, ok := have.Get(id)
				missing = missing || !ok || h.String() != o.String()
			}
			if !missing {
				break
			}
			if time.Since(begun) > 30*time.Second {
				t.Fatalf("%s: not repaired: %s", injury, have)
			}
			time.Sleep(time.Millisecond)
		}
		t.Logf("%s: back after %s", injury, time.Since(begun))
	}
	have, err := look.Read(t.Context(), want)
	if err != nil || !strings.Contains(have.String(), "10.99.0.1/32") {
		t.Errorf("the pod's own address is gone: %v\n%s", err, have)
	}
	var b strings.Builder
	if d.healing.WriteMetrics(&b); !strings.Contains(b.String(), `weft_repair_seconds_count{object="pod"}`) {
		t.Errorf("no repair of a pod in the metrics:\n%s", b.String())
	}
}

// TestManyPods: what watching the pods of a full node costs, and that all of it is given back.
func TestManyPods(t *testing.T) {
	const pods = 110
	d, end := watched(t)
	fds := func() int {
		list, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(list)
	}
	memory := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc + m.StackInuse
	}
	var all []attach.Pod
	var wants []netstate.State
	for i := range pods {
		_, p, want := sandbox(t, i+1)
		all, wants = append(all, p), append(wants, want)
	}
	f0, g0, m0 := fds(), runtime.NumGoroutine(), memory()
	begun := time.Now()
	for i, p := range all {
		if n := d.enter(p); n.take(t.Context(), wants[i]) == 0 || trouble(n) != nil {
			t.Fatal(trouble(n))
		}
	}
	took := time.Since(begun)
	f, g, m := fds()-f0, runtime.NumGoroutine()-g0, int(memory())-int(m0)
	t.Logf("%d pods: programmed in %s, %d descriptors, %d goroutines, %d KB", pods, took.Round(time.Millisecond), f, g, m>>10)
	if f > 2*pods || g > 7*pods || m > 100<<10*pods {
		t.Errorf("too much: %d descriptors, %d goroutines, %d bytes", f, g, m)
	}
	for _, p := range all {
		d.drop(p.UID)
	}
	end()
	for begun := time.Now(); fds() > f0 || runtime.NumGoroutine() > g0; time.Sleep(time.Millisecond) {
		if time.Since(begun) > 30*time.Second {
			t.Fatalf("not given back: %d descriptors, %d goroutines", fds()-f0, runtime.NumGoroutine()-g0)
		}
	}
}

// TestHostilePod: a pod that changes its network as fast as it can gets few repairs.
func TestHostilePod(t *testing.T) {
	d, end := watched(t)
	defer end()
	_, p, want := sandbox(t, 1)
	n := d.enter(p)
	if n.take(t.Context(), want); trouble(n) != nil {
		t.Fatal(trouble(n))
	}
	route := netstate.Route{Dst: netip.MustParsePrefix("0.0.0.0/0"), Via: netip.MustParseAddr("10.7.255.1"), Dev: "eth0", Onlink: true}
	thief, err := kernel.Open(p.Netns)
	if err != nil {
		t.Fatal(err)
	}
	defer thief.Close()
	thefts := 0
	for begun := time.Now(); time.Since(begun) < time.Second; thefts++ {
		_ = thief.Apply(t.Context(), []netstate.Op{{Verb: netstate.Del, Object: route}})
	}
	for begun := time.Now(); d.healing.RepairsOf("pod") == 0 && time.Since(begun) < 30*time.Second; { // the machine may be busy
		time.Sleep(time.Millisecond)
	}
	var b strings.Builder
	d.healing.WriteMetrics(&b)
	if n := d.healing.RepairsOf("pod"); n == 0 || n > 30 {
		t.Errorf("%d thefts: repairs\n%s", thefts, b.String())
	}
	t.Logf("%d thefts, fights %+v", thefts, d.healing.List())
}
