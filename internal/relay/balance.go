package relay

import (
	"net/netip"
	"slices"
	"sync"
	"time"
)

// downFor is how long an endpoint that failed is only used when no other is left: until the API says what became of it.
const downFor = time.Second

// balancer chooses endpoints round robin, or the one a client had before (session affinity ClientIP).
type balancer struct {
	mu       sync.Mutex
	list     []netip.AddrPort
	next     int
	down     map[netip.AddrPort]time.Time // failed then
	affinity time.Duration                // 0: none
	clients  map[netip.Addr]sticky
	sweep    int // size of clients at which expired ones are thrown out
}

type sticky struct {
	endpoint netip.AddrPort
	last     time.Time // of the last connection
}

func newBalancer(list []netip.AddrPort, affinity time.Duration) *balancer {
	b := &balancer{down: map[netip.AddrPort]time.Time{}, clients: map[netip.Addr]sticky{}, sweep: 1024}
	b.set(list, affinity)
	return b
}

// set changes the endpoints. The turn goes on where it was.
func (b *balancer) set(list []netip.AddrPort, affinity time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.list = slices.Clone(list)
	b.affinity = affinity
	if affinity == 0 {
		clear(b.clients)
	}
	for e := range b.down {
		if !slices.Contains(list, e) {
			delete(b.down, e)
		}
	}
}

// pick returns the endpoint to try next for a client, none of those tried. Endpoints of the client's family are preferred; false
// says that there is none left.
func (b *balancer) pick(client netip.Addr, tried []netip.AddrPort) (netip.AddrPort, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	if s, ok := b.clients[client]; ok && len(tried) == 0 && now.Sub(s.last) < b.affinity && slices.Contains(b.list, s.endpoint) {
		return s.endpoint, true
	}
	family := slices.ContainsFunc(b.list, func(e netip.AddrPort) bool { return e.Addr().Is6() == client.Is6() })
	fit := func(e netip.AddrPort) bool {
		return (!family || e.Addr().Is6() == client.Is6()) && !slices.Contains(tried, e)
	}
	up := func(e netip.AddrPort) bool {
		at, failed := b.down[e]
		return fit(e) && (!failed || now.Sub(at) > downFor)
	}
	for _, ok := range []func(netip.AddrPort) bool{up, fit} {
		for i := range b.list {
			k := (b.next + i) % len(b.list)
			if ok(b.list[k]) {
				b.next = k + 1
				return b.list[k], true
			}
		}
	}
	return netip.AddrPort{}, false
}

// used notes that the client has a connection to the endpoint.
func (b *balancer) used(client netip.Addr, e netip.AddrPort) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.down) > 0 {
		delete(b.down, e)
	}
	if b.affinity == 0 {
		return
	}
	now := time.Now()
	if len(b.clients) >= b.sweep {
		for c, s := range b.clients {
			if now.Sub(s.last) >= b.affinity {
				delete(b.clients, c)
			}
		}
		b.sweep = max(1024, 2*len(b.clients))
	}
	b.clients[client] = sticky{e, now}
}

// failed notes that the endpoint refused or didn't answer.
func (b *balancer) failed(e netip.AddrPort) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if slices.Contains(b.list, e) {
		b.down[e] = time.Now()
	}
}
