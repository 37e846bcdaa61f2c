package relay

import (
	"net/netip"
	"slices"
	"sync"
	"time"

	"weft/internal/api"
	"weft/internal/maglev"
	"weft/internal/netstate"
)

// downFor is how long an endpoint that failed is only used when no other is left: until the API says what became of it.
const downFor = time.Second

// balancer chooses endpoints: in turns by weight, those with the fewest connections, or by the client's address; or the one a client had
// before (session affinity ClientIP). It is told when a connection ends.
type balancer struct {
	mu       sync.Mutex
	mode     api.Balance
	list     []netip.AddrPort
	weights  []uint8 // nil: all equal
	next     int     // whose turn it is, without weights
	credit   []int   // of each endpoint, with weights
	tables   [2]hashTable
	active   map[netip.AddrPort]int       // connections now and being made, of endpoints that are gone too
	down     map[netip.AddrPort]time.Time // failed then
	affinity time.Duration                // 0: none
	clients  map[netip.Addr]sticky
	sweep    int // size of clients at which expired ones are thrown out
}

type sticky struct {
	endpoint netip.AddrPort
	last     time.Time // of the last connection
}

// hashTable is the consistent hashing of one family's clients.
type hashTable struct {
	list  []netip.AddrPort
	slots []uint16
}

func newBalancer(w netstate.Listener) *balancer {
	b := &balancer{
		active: map[netip.AddrPort]int{}, down: map[netip.AddrPort]time.Time{}, clients: map[netip.Addr]sticky{}, sweep: 1024,
	}
	b.set(w)
	return b
}

// set changes the endpoints and how they are chosen. The turn goes on where it was.
func (b *balancer) set(w netstate.Listener) {
	b.mu.Lock()
	defer b.mu.Unlock()
	mode := api.Balance(w.Balance)
	if mode != b.mode || !slices.Equal(w.Endpoints, b.list) || !slices.Equal(w.Weights, b.weights) {
		b.list, b.weights, b.mode = slices.Clone(w.Endpoints), slices.Clone(w.Weights), mode
		b.credit = nil
		if b.weights != nil {
			b.credit = make([]int, len(b.list))
		}
		b.hash()
	}
	b.affinity = time.Duration(w.Affinity) * time.Second
	if b.affinity == 0 {
		clear(b.clients)
	}
	for e := range b.down {
		if !slices.Contains(b.list, e) {
			delete(b.down, e)
		}
	}
}

// hash makes the tables of consistent hashing. Clients of a family without endpoints get those of the other.
func (b *balancer) hash() {
	b.tables = [2]hashTable{}
	if b.mode != api.Maglev {
		return
	}
	for i := range b.tables {
		list, weights := maglev.Family(b.list, b.weights, i == 1)
		if len(list) == 0 {
			list, weights = b.list, b.weights
		}
		b.tables[i] = hashTable{list, maglev.Table(list, weights, maglev.Size(len(list)))}
	}
}

// pick returns the endpoint to try next for a client, none of those tried. Endpoints of the client's family are preferred; false
// says that there is none left. The endpoint counts as in use until release.
func (b *balancer) pick(client netip.Addr, tried []netip.AddrPort) (netip.AddrPort, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	e, ok := b.choose(client, tried)
	if ok {
		b.active[e]++
	}
	return e, ok
}

// has reports whether an endpoint is one of those to choose from.
func (b *balancer) has(e netip.AddrPort) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Contains(b.list, e)
}

func (b *balancer) choose(client netip.Addr, tried []netip.AddrPort) (netip.AddrPort, bool) {
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
		if e, found := b.among(client, ok); found {
			return e, true
		}
	}
	return netip.AddrPort{}, false
}

// among chooses one of the endpoints that are ok.
func (b *balancer) among(client netip.Addr, ok func(netip.AddrPort) bool) (netip.AddrPort, bool) {
	switch b.mode {
	case api.Maglev:
		return b.hashed(client, ok)
	case api.LeastConnections:
		return b.least(ok)
	}
	return b.turns(ok)
}

// hashed goes from the client's slot to the first one whose endpoint is ok: the next is the same for the client every time.
func (b *balancer) hashed(client netip.Addr, ok func(netip.AddrPort) bool) (netip.AddrPort, bool) {
	t := b.tables[0]
	if client.Is6() {
		t = b.tables[1]
	}
	if len(t.slots) == 0 || !client.IsValid() {
		return netip.AddrPort{}, false
	}
	first := int(maglev.Slot(client, len(t.slots), maglev.Seed))
	for i := range t.slots {
		if e := t.list[t.slots[(first+i)%len(t.slots)]]; ok(e) {
			return e, true
		}
	}
	return netip.AddrPort{}, false
}

// least is the endpoint with the fewest connections for its weight; equal ones take turns, by weight too.
func (b *balancer) least(ok func(netip.AddrPort) bool) (netip.AddrPort, bool) {
	best := -1
	less := func(i, j int) bool { return b.active[b.list[i]]*b.weight(j) < b.active[b.list[j]]*b.weight(i) }
	for i := range b.list {
		if ok(b.list[i]) && (best < 0 || less(i, best)) {
			best = i
		}
	}
	if best < 0 {
		return netip.AddrPort{}, false
	}
	least := make([]netip.AddrPort, 0, len(b.list))
	for i := range b.list {
		if ok(b.list[i]) && !less(best, i) {
			least = append(least, b.list[i])
		}
	}
	return b.turns(func(e netip.AddrPort) bool { return slices.Contains(least, e) })
}

// turns gives each endpoint its turn.
func (b *balancer) turns(ok func(netip.AddrPort) bool) (netip.AddrPort, bool) {
	if b.weights != nil {
		return b.weighted(ok)
	}
	for i := range b.list {
		k := (b.next + i) % len(b.list)
		if ok(b.list[k]) {
			b.next = k + 1
			return b.list[k], true
		}
	}
	return netip.AddrPort{}, false
}

// weighted gives each endpoint its turns, evenly between those of the others.
func (b *balancer) weighted(ok func(netip.AddrPort) bool) (netip.AddrPort, bool) {
	best, total := -1, 0
	for i, e := range b.list {
		if !ok(e) {
			continue
		}
		b.credit[i] += b.weight(i)
		total += b.weight(i)
		if best < 0 || b.credit[i] > b.credit[best] {
			best = i
		}
	}
	if best < 0 {
		return netip.AddrPort{}, false
	}
	b.credit[best] -= total
	return b.list[best], true
}

func (b *balancer) weight(i int) int {
	if b.weights == nil {
		return 1
	}
	return max(1, int(b.weights[i]))
}

// release notes that a picked endpoint is no longer in use for that connection.
func (b *balancer) release(e netip.AddrPort) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.active[e]--; b.active[e] <= 0 {
		delete(b.active, e)
	}
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
