package store_test

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"weft/internal/lease"
	"weft/internal/lease/claim"
)

// TestTrouble: what is wrong is said with the time it began, and ends when it does, also where nothing had to be written.
func TestTrouble(t *testing.T) {
	s := newStore()
	k, _ := run(t, s, want(1))
	l := own(t, k)
	if st := k.Status(); st.Problem != "" || !st.Since.IsZero() || !st.Believes(time.Now()) || st.Believes(l.Expiry.Add(-time.Minute)) {
		t.Errorf("healthy: %+v", st)
	}
	says := func(text string) func() bool {
		return func() bool {
			st := k.Status()
			return strings.Contains(st.Problem, text) && (text == "") == st.Since.IsZero() && (text != "" || st.Problem == "")
		}
	}
	s.Put(claim.ConfigKey, `{"Network":"ten"}`, 0)
	eventually(t, "the broken config is said", says(`the last good one stays: network config: Network: "ten"`))
	s.Put(claim.ConfigKey, config, 0)
	eventually(t, "it is over", says(""))

	route := claim.HostRoute{Dst: netip.PrefixFrom(l.Subnet.Addr(), 25), Dev: "eth1"}
	k.Change(func(w *claim.Want) { w.Avoid = []claim.HostRoute{route} })
	eventually(t, "the route in the way is said", says("overlaps the host's own route "+route.String()))
	if st := k.Status(); st.Own.Subnet != l.Subnet {
		t.Errorf("moved to %s", st.Own.Subnet)
	}
	k.Change(func(w *claim.Want) { w.Avoid = nil })
	eventually(t, "it is over", says(""))

	s.Put(claim.Subnets+lease.Key(l), `{"PublicIP":"192.0.2.99","PublicIPv6":null,"BackendType":"host-gw"}`, time.Hour)
	eventually(t, "another subnet", func() bool {
		st := k.Status()
		return st.Phase == claim.Held && st.Own.Subnet != l.Subnet && st.Problem == "" && st.Believes(time.Now())
	})
}

// TestRouteInTheWay: a peer's lease is refused while a route of the host is in its way, and nothing else changes.
func TestRouteInTheWay(t *testing.T) {
	s := newStore()
	k, _ := run(t, s, want(1))
	own(t, k)
	s.Put("subnets/172.20.1.0-24", `{"PublicIP":"192.0.2.99","PublicIPv6":null,"BackendType":"host-gw"}`, time.Hour)
	s.Put("subnets/172.20.2.0-24", `{"PublicIP":"192.0.2.98","PublicIPv6":null,"BackendType":"host-gw"}`, time.Hour)
	eventually(t, "both peers", func() bool { return len(k.Peers()) == 2 })
	k.Change(func(w *claim.Want) {
		w.Avoid = []claim.HostRoute{{Dst: netip.MustParsePrefix("172.20.1.7/32"), Dev: "eth1"}}
	})
	eventually(t, "one is refused", func() bool {
		st := k.Status()
		return len(st.Peers) == 1 && len(st.Refused) == 1 && st.Refused[0].Kind == claim.InTheWay && st.Refused[0].Key == "172.20.1.0-24"
	})
	s.Put("subnets/172.20.3.0-24", `{"PublicIP":"192.0.2.97","PublicIPv6":null,"BackendType":"host-gw"}`, time.Hour)
	eventually(t, "others still come", func() bool { return len(k.Peers()) == 2 })
	k.Change(func(w *claim.Want) { w.Avoid = nil })
	eventually(t, "it is taken up", func() bool { return len(k.Peers()) == 3 && len(k.Status().Refused) == 0 })
}

// TestIdleReservation: a reservation that nobody has taken up is no peer, its subnet is not given away, and its host takes it for ever.
func TestIdleReservation(t *testing.T) {
	s := newStore()
	s.Put("subnets/172.20.5.0-24", `{"PublicIP":"192.0.2.10"}`, 0)
	k, _ := run(t, s, want(1))
	own(t, k)
	if st := k.Status(); len(st.Peers) != 0 || len(st.Refused) != 0 {
		t.Errorf("peers %+v, refused %+v", st.Peers, st.Refused)
	}
	thief := want(2)
	thief.Self.Subnet = netip.MustParsePrefix("172.20.5.0/24")
	other, _ := run(t, s, thief)
	eventually(t, "the reserved subnet is refused to others", func() bool {
		return strings.Contains(other.Status().Problem, "overlaps the lease 172.20.5.0-24 of 192.0.2.10")
	})
	holder, _ := run(t, s, want(9))
	if l := own(t, holder); l.Subnet.String() != "172.20.5.0/24" || !holder.Status().Permanent {
		t.Errorf("the holder has %+v", holder.Status())
	}
	eventually(t, "now it is a peer", func() bool { return len(k.Peers()) == 1 })
	for _, e := range s.Snapshot().Entries {
		if e.Key == "subnets/172.20.5.0-24" && e.Lease != 0 {
			t.Error("the reservation lost its permanence")
		}
	}
}
