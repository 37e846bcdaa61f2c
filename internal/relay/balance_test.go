package relay

import (
	"net/netip"
	"testing"

	"weft/internal/maglev"
	"weft/internal/netstate"
)

func balanced(mode string, weights ...uint8) netstate.Listener {
	w := netstate.Listener{Balance: mode, Weights: weights}
	for i := range 3 {
		w.Endpoints = append(w.Endpoints, netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(i + 1)}), 80))
	}
	return w
}

var someone = netip.MustParseAddr("10.9.9.9")

// take picks n times and returns how often each endpoint came, and the choices.
func take(t *testing.T, b *balancer, w netstate.Listener, n int) (counts [3]int, all []netip.AddrPort) {
	t.Helper()
	for range n {
		e, ok := b.pick(someone, nil)
		if !ok {
			t.Fatal("no endpoint")
		}
		for i := range w.Endpoints {
			if w.Endpoints[i] == e {
				counts[i]++
			}
		}
		all = append(all, e)
	}
	return counts, all
}

func TestWeighted(t *testing.T) {
	w := balanced("", 1, 2, 5)
	b := newBalancer(w)
	got, all := take(t, b, w, 80)
	if got != [3]int{10, 20, 50} {
		t.Errorf("turns %v, want 10, 20, 50", got)
	}
	same := 0
	for i := 1; i < len(all); i++ {
		if all[i] == all[i-1] {
			if same++; same > 3 {
				t.Fatalf("%d times the same one in a row", same+1)
			}
		} else {
			same = 0
		}
	}
	w.Weights = nil // live
	b.set(w)
	if got, _ := take(t, b, w, 30); got != [3]int{10, 10, 10} {
		t.Errorf("turns without weights %v", got)
	}
}

func TestLeastConnections(t *testing.T) {
	w := balanced("")
	b := newBalancer(w)
	_, before := take(t, b, w, 3) // counted in any mode
	w.Balance = "least-connections"
	b.set(w)
	if got, _ := take(t, b, w, 27); got != [3]int{9, 9, 9} {
		t.Errorf("from the same: %v", got)
	}
	for range 5 {
		b.release(w.Endpoints[1])
	}
	if got, _ := take(t, b, w, 5); got != [3]int{0, 5, 0} {
		t.Errorf("after the second lost five: %v", got)
	}
	w.Weights = []uint8{1, 1, 2}
	b.set(w)
	if got, _ := take(t, b, w, 10); got != [3]int{0, 0, 10} {
		t.Errorf("the third may have twice as many: %v", got)
	}
	for range 20 {
		for _, e := range before {
			b.release(e)
		}
	}
	if len(b.active) != 0 {
		t.Errorf("all released, counted are %v", b.active)
	}
}

// TestLeastOfNone: short connections one after the other find no connections anywhere; they go by weight all the same.
func TestLeastOfNone(t *testing.T) {
	w := balanced("least-connections", 1, 1, 3)
	b := newBalancer(w)
	got := map[netip.AddrPort]int{}
	for range 50 {
		e, _ := b.pick(someone, nil)
		got[e]++
		b.release(e)
	}
	if got[w.Endpoints[0]] != 10 || got[w.Endpoints[1]] != 10 || got[w.Endpoints[2]] != 30 {
		t.Errorf("%v, want 10, 10, 30", got)
	}
}

func TestHashed(t *testing.T) {
	w := balanced("maglev")
	b := newBalancer(w)
	moved := 0
	for client := netip.MustParseAddr("10.1.0.0"); client.As4()[3] < 200; client = client.Next() {
		want := maglev.Endpoint(client, w.Endpoints, nil)
		for range 3 {
			if e, ok := b.pick(client, nil); !ok || e != want {
				t.Fatalf("%s: %s, want %s", client, e, want)
			}
		}
		// the next one is the same every time too
		next, ok := b.pick(client, []netip.AddrPort{want})
		again, _ := b.pick(client, []netip.AddrPort{want})
		if !ok || next == want || again != next {
			t.Fatalf("%s: after %s came %s and %s", client, want, next, again)
		}
		if next == w.Endpoints[0] {
			moved++
		}
	}
	if moved == 0 || moved == 200 {
		t.Errorf("all clients of a refusing endpoint go to one other")
	}
	if e, ok := b.pick(netip.MustParseAddr("fd00::1"), nil); !ok || !e.IsValid() {
		t.Error("an IPv6 client gets no IPv4 endpoint")
	}
}
