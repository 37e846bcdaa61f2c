package network

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"weft/internal/agent/loop"
	"weft/internal/netstate"
)

// TestFightHoldsOneObjectBack: an object that is fought for waits, others do not, and what lies on a link waits with the link.
func TestFightHoldsOneObjectBack(t *testing.T) {
	var m mender
	now := time.Unix(0, 0)
	link := netstate.Link{Name: "flannel.1"}
	onLink := netstate.Neigh{Dev: "flannel.1"}
	other := netstate.Neigh{Dev: "eth0"}
	var notes []string
	for range loop.FightLimit + 1 {
		if hold := m.hold(now, true, nil); hold != nil && hold(netstate.Op{Object: link}) {
			t.Fatal("held back before it is a fight")
		}
		notes = append(notes, m.fights.Repaired(now, []string{nameOf(link)}, map[string]string{"link flannel.1": "pid 7 (ip)"})...)
		now = now.Add(10 * time.Millisecond)
	}
	if len(notes) != 1 || !strings.HasPrefix(notes[0], "pid 7 (ip) keeps changing link flannel.1 ") {
		t.Errorf("notes: %q", notes)
	}
	hold := m.hold(now, true, nil)
	if hold == nil || !hold(netstate.Op{Object: link}) || !hold(netstate.Op{Object: onLink}) || hold(netstate.Op{Object: other}) {
		t.Error("want the link and what is on it held back, and nothing else")
	}
	again := m.again()
	if again.IsZero() || len(m.due(now)) != 0 {
		t.Errorf("again at %s", again)
	}
	if ids := m.due(again); len(ids) != 2 || !m.again().IsZero() {
		t.Errorf("due: %v", ids)
	}
	if m.hold(again, true, nil) != nil || m.hold(now, false, nil) != nil {
		t.Error("held back when it is due, or without a plan in force")
	}
	if list := m.fights.Report("network"); len(list) != 1 || list[0].By != "pid 7 (ip)" || list[0].Repairs != loop.FightLimit+1 || !list[0].Next.Equal(again) {
		t.Errorf("report: %+v", list)
	}
}

// TestHealingMetrics: the histogram counts one step's repairs of a kind once, leaves fights out, and tells of these.
func TestHealingMetrics(t *testing.T) {
	var h loop.Healing
	since := time.Unix(100, 0)
	w := loop.Work{Repaired: []string{"route 10.0.0.0/24", "route 10.0.1.0/24", "link flannel.1"}}
	h.Step("network", since.Add(3*time.Millisecond), since, w, []loop.Fight{{Loop: "network", Object: "link flannel.1", By: "pid 7 (ip)", Repairs: 12}})
	h.Step("network", since.Add(30*time.Second), since, loop.Work{Repaired: []string{"route 10.0.0.0/24"}}, nil)
	h.Step("services", since, time.Time{}, loop.Work{Repaired: []string{"nftables set inet weft x"}}, []loop.Fight{{Loop: "services", Object: "nftables set inet weft x"}})
	var b strings.Builder
	h.WriteMetrics(&b)
	for _, want := range []string{
		`weft_repair_seconds_bucket{object="route",le="0.0025"} 0`, `weft_repair_seconds_bucket{object="route",le="0.005"} 1`,
		`weft_repair_seconds_bucket{object="route",le="10"} 1`, `weft_repair_seconds_bucket{object="route",le="+Inf"} 2`,
		`weft_repair_seconds_count{object="route"} 2`, "weft_fights 1\n",
		`weft_fight_repairs{loop="services",object="nftables set inet weft x",by=""} 0`,
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %s in\n%s", want, b.String())
		}
	}
	if strings.Contains(b.String(), `object="link"`) || strings.Contains(b.String(), `weft_repair_seconds_count{object="nftables"}`) {
		t.Errorf("a fight or a check's find is in the histogram:\n%s", b.String())
	}
}

func TestNamesOfObjects(t *testing.T) {
	for _, c := range []struct{ line, want string }{
		{"route 172.16.78.0/24 via 172.16.78.0 dev flannel.1 proto 119 onlink", "route 172.16.78.0/24"},
		{"neigh 172.16.78.0 lladdr 02:00:00:00:00:01 dev flannel.1 nud permanent", "neigh flannel.1 172.16.78.0"},
		{"sysctl net/ipv4/ip_forward=1", "sysctl net/ipv4/ip_forward"},
	} {
		o, err := netstate.ParseLine(c.line)
		if err != nil {
			t.Error(err)
			continue
		}
		if got := nameOf(o); got != c.want {
			t.Errorf("%s: %s, want %s", c.line, got, c.want)
		}
	}
}

// TestPodHold: what a pod adds for itself stays, a renamed interface of ours gets its name back or goes, a missing one is left to the host's loop.
func TestPodHold(t *testing.T) {
	eth0 := netstate.Link{Name: "eth0", Type: netstate.TypeVeth, Alias: "weft:pod"}
	renamed := eth0
	renamed.Name = "mine"
	route := func(line string) netstate.Object {
		o, err := netstate.ParseLine("route " + line)
		if err != nil {
			t.Fatal(err)
		}
		return o
	}
	planned, own := route("10.0.0.0/24 dev eth0 proto 119"), route("10.9.0.0/24 dev eth0 proto 119")
	n := &podNet{want: netstate.New(eth0, planned)}
	for _, c := range []struct {
		have     []netstate.Object
		gap, end gap
		want     string
	}{
		{[]netstate.Object{eth0}, gap{}, gap{}, "[ip route add 10.0.0.0/24 dev eth0 proto 119]"},
		{[]netstate.Object{eth0, planned, own}, gap{}, gap{}, "[]"},
		{nil, gap{}, gap{missing: "eth0"}, "[]"},
		{[]netstate.Object{renamed}, gap{}, gap{missing: "eth0", stray: "mine"}, "[]"},
		{[]netstate.Object{renamed}, gap{last: true}, gap{missing: "eth0", last: true}, "[ip link del dev mine]"},
		{[]netstate.Object{eth0, planned, renamed}, gap{}, gap{}, "[ip link del dev mine]"},
	} {
		g, left := c.gap, []netstate.Op{}
		hold := n.hold(&g)
		for _, op := range netstate.Diff(n.want, netstate.New(c.have...)) {
			if !hold(op) {
				left = append(left, op)
			}
		}
		if fmt.Sprint(left) != c.want || g != c.end {
			t.Errorf("%v: %v, %+v", c.have, left, g)
		}
	}
}
