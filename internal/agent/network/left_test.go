package network

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"weft/internal/agent/agenttest"
	"weft/internal/agent/attachments"
	"weft/internal/agent/facts"
	"weft/internal/agent/ways"
	"weft/internal/api"
	"weft/internal/lease"
	"weft/internal/netstate"
)

// ending is a loop whose last step was of a change's second phase, from one backend to another one, with one peer.
func ending(t *testing.T, from, to, prefix string) *Loop {
	t.Helper()
	f := agenttest.Walkthrough(facts.NFTables)
	conf := func(more string) lease.Config {
		c, _, err := lease.ParseConfig([]byte(`{"Network":"172.16.0.0/12","Backend":` + to + more + `}`))
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	f.TakeNetwork(conf(`,"` + prefix + `Backend":` + from + `,"Change":"x"`))
	kind := func(c lease.Backend, key string) lease.Kind {
		k := c.Kind()
		if k.Type == lease.WireGuard {
			k.WGKey = key
		}
		return k
	}
	c := conf(`,"PreviousBackend":` + from)
	told := func(key, subnet, public string) api.Lease {
		l := kind(c.Backend, key).Of(api.Lease{Node: key, Subnet: netip.MustParsePrefix(subnet), PublicIP: netip.MustParseAddr(public)})
		return lease.Announce(l, kind(c.Previous, key))
	}
	own := told("own=", "172.16.28.0/24", "172.17.42.31")
	peer := told("peer=", "172.16.78.0/24", "172.17.42.32")
	pods, err := attachments.Open(t.TempDir() + "/attachments.json")
	if err != nil {
		t.Fatal(err)
	}
	d := &Loop{
		kinds: map[ways.Kind]time.Time{}, again: make(chan struct{}, 1), settings: &facts.InForce{}, refused: map[string]bool{}, pods: pods,
	}
	d.told = basis{setting: facts.Setting{Facts: f, Announced: own}, peers: []api.Lease{peer}}
	f.TakeNetwork(conf(""))
	own.Also, peer.Also = "", ""
	d.settings.Set(facts.Setting{Facts: f, Announced: own})
	d.leases = &agenttest.Journal{Self: own, Others: []api.Lease{peer}}
	return d
}

// TestTunnelsAreEmptied: what waits in a tunnel of user space when a change leads away from it is still sent and taken, by what the leases said
// of it, and then the tunnel goes.
func TestTunnelsAreEmptied(t *testing.T) {
	t.Parallel()
	const vxlan, udp = `{"Type":"vxlan"}`, `{"Type":"udp"}`
	const first, second = `{"Type":"wireguard"}`, `{"Type":"wireguard","ListenPort":7000}`
	for _, c := range []struct {
		from, to, prefix string
		tunnels          []string // of what was left
	}{
		{first, vxlan, "Previous", []string{"172.16.78.0/24 dev flannel-wg local 0.0.0.0:51820 remote 172.17.42.32:51820 peer peer= keepalive 25"}},
		{udp, vxlan, "Previous", []string{"172.16.78.0/24 dev flannel0 local 172.17.42.31:8285 remote 172.17.42.32:8285"}},
		{udp, first, "Previous", []string{"172.16.78.0/24 dev flannel0 local 172.17.42.31:8285 remote 172.17.42.32:8285"}},
		{first, second, "Previous", []string{"172.16.78.0/24 dev flannel-wg local 0.0.0.0:51820 remote 172.17.42.32:51820 peer peer="}},
		{vxlan, udp, "Previous", nil},
		{first, second, "Next", nil}, // given up: nobody sent by it
	} {
		t.Run(c.prefix+" "+c.from+" "+c.to, func(t *testing.T) {
			t.Parallel()
			emptiedOf(t, ending(t, c.from, c.to, c.prefix), c.tunnels)
		})
	}
}

func emptiedOf(t *testing.T, d *Loop, tunnels []string) {
	t.Helper()
	begin := time.Unix(1000, 0)
	for _, at := range []struct {
		after time.Duration
		want  []string
	}{{0, tunnels}, {emptied - 1, tunnels}, {emptied, nil}} { // each step until one worked
		host, _, _, err := d.plan(begin.Add(at.after))
		if err != nil {
			t.Fatal(err)
		}
		k := ways.OtherKind(d.told.setting.Facts)
		var got []string
		for _, u := range netstate.Of[netstate.Tunnel](host) {
			if k.Type == lease.UDP && u.PeerKey == "" || k.Type == lease.WireGuard && u.PeerKey != "" && u.Local.Port() == k.Port {
				got = append(got, u.String())
			}
		}
		if !slices.Equal(got, at.want) {
			t.Errorf("after %s: %q, want %q\n%s", at.after, got, at.want, host)
		}
	}
	if tunnels == nil {
		return
	}
	select {
	case <-d.again:
	case <-time.After(emptied + 30*time.Second):
		t.Error("nobody looks when the time is up")
	}
}
