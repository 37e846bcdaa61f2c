package wg

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"weft/internal/netstate"
)

// peer is what a device is told of another host.
type peer struct {
	key       Key
	endpoint  netip.AddrPort
	allowed   []netip.Prefix // sorted
	keepalive int            // seconds
	kept      bool           // in a change: the device has the same allowed addresses
}

func (p peer) equal(q peer) bool {
	return p.key == q.key && p.endpoint == q.endpoint && p.keepalive == q.keepalive && slices.Equal(p.allowed, q.allowed)
}

// config is what a device is told.
type config struct {
	port  uint16 // 0 as long as there is no peer
	peers map[Key]peer
}

// configOf takes the tunnels of the device from the State. A tunnel that contradicts another one of the same peer is an error, and the rest
// is good.
func configOf(want netstate.State, dev string) (config, error) {
	c := config{peers: map[Key]peer{}}
	var bad []string
	for _, t := range netstate.Of[netstate.Tunnel](want) {
		if t.Dev != dev {
			continue
		}
		k, err := ParseKey(t.PeerKey)
		if err != nil {
			bad = append(bad, fmt.Sprintf("%s: peer %q: %v", t.Subnet, t.PeerKey, err))
			continue
		}
		p, ok := c.peers[k]
		if ok && p.endpoint != t.Remote {
			bad = append(bad, fmt.Sprintf("%s: host %s has the key of host %s: delete the key file of one of them", t.Subnet, t.Remote, p.endpoint))
			continue
		}
		p.key, p.endpoint, p.keepalive, p.allowed = k, t.Remote, t.Keepalive, append(p.allowed, t.Subnet)
		slices.SortFunc(p.allowed, comparePrefix)
		c.peers[k] = p
		c.port = t.Local.Port()
	}
	if len(bad) > 0 {
		return c, fmt.Errorf("tunnels of %s: %s", dev, strings.Join(bad, "; "))
	}
	return c, nil
}

// change is what turns one config into another.
type change struct {
	port uint16 // 0: as it is
	set  []peer
	del  []Key
}

func (c change) empty() bool { return c.port == 0 && len(c.set) == 0 && len(c.del) == 0 }

// changeOf compares; both lists are sorted. Peers that stay as they are are not mentioned, so that an endpoint that WireGuard found to have
// moved stays too.
func changeOf(want, have config) change {
	var c change
	if want.port != have.port {
		c.port = want.port
	}
	for k, p := range want.peers {
		if h, ok := have.peers[k]; !ok || !p.equal(h) {
			p.kept = have.sameAllowed(p)
			c.set = append(c.set, p)
		}
	}
	for k := range have.peers {
		if _, ok := want.peers[k]; !ok {
			c.del = append(c.del, k)
		}
	}
	compare := func(a, b Key) int { return slices.Compare(a[:], b[:]) }
	slices.SortFunc(c.set, func(a, b peer) int { return compare(a.key, b.key) })
	slices.SortFunc(c.del, compare)
	return c
}

func comparePrefix(a, b netip.Prefix) int {
	return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
}
