package maglev

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
)

// TestJHash compares with the test vectors of Bob Jenkins' lookup3.c (hashlittle): the kernel's jhash adds 0xdeadbeef, the length and the
// seed in the same way.
func TestJHash(t *testing.T) {
	for _, c := range []struct {
		key  string
		seed uint32
		want uint32
	}{
		{"", 0, 0xdeadbeef},
		{"", 0xdeadbeef, 0xbd5b7dde},
		{"Four score and seven years ago", 0, 0x17770551},
		{"Four score and seven years ago", 1, 0xcd628161},
	} {
		if got := JHash([]byte(c.key), c.seed); got != c.want {
			t.Errorf("JHash(%q, %d) = %#x, want %#x", c.key, c.seed, got, c.want)
		}
	}
}

func endpoints(n int) []netip.AddrPort {
	out := make([]netip.AddrPort, n)
	for i := range out {
		out[i] = netip.AddrPortFrom(netip.AddrFrom4([4]byte{172, 16, byte(i >> 8), byte(i)}), 80)
	}
	return out
}

func share(t []uint16, n int) []int {
	out := make([]int, n)
	for _, i := range t {
		out[i]++
	}
	return out
}

func TestTableIsEven(t *testing.T) {
	for _, n := range []int{1, 2, 3, 10, 63, 64, 500, 1000} {
		size := Size(n)
		got := share(Table(endpoints(n), nil, size), n)
		if low, high := slices.Min(got), slices.Max(got); high-low > 1 {
			t.Errorf("%d endpoints: from %d to %d slots of %d", n, low, high, size)
		}
	}
}

func TestWeights(t *testing.T) {
	weights := []uint8{1, 2, 0, 6}
	got := share(Table(endpoints(4), weights, 1021), 4)
	for i, part := range []float64{1, 2, 1, 6} {
		want := 1021 * part / 10
		if d := float64(got[i]) - want; d < -3 || d > 3 {
			t.Errorf("endpoint %d of weight %d has %d slots, want about %.0f", i, weights[i], got[i], want)
		}
	}
}

// TestFewMove takes endpoints away and adds some: the clients of those that stay keep theirs, but for a few.
func TestFewMove(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	worst := 0.0
	for _, n := range []int{2, 3, 5, 10, 30, 62, 200} {
		size := Size(n)
		for range 10 {
			all := endpoints(n)
			gone := r.IntN(n)
			left := slices.Delete(slices.Clone(all), gone, gone+1)
			if Size(len(left)) != size {
				continue
			}
			before, after := Table(all, nil, size), Table(left, nil, size)
			moved, kept := 0, 0
			for s := range before {
				if was := all[before[s]]; was == all[gone] {
					continue
				} else if kept++; left[after[s]] != was {
					moved++
				}
			}
			part := float64(moved) / float64(kept)
			if worst = max(worst, part); part > 0.08 {
				t.Errorf("%d endpoints, one goes: %.1f%% of the slots of the others move", n, 100*part)
			}
		}
	}
	t.Logf("at most %.1f%% of the clients of other endpoints move", 100*worst)
}

// TestClientsSpread sends neighbouring addresses of both families.
func TestClientsSpread(t *testing.T) {
	const n, clients = 10, 20000
	for _, first := range []string{"172.16.0.1", "fd00:16::1"} {
		got := make([]int, n)
		table := Table(endpoints(n), nil, Size(n))
		a := netip.MustParseAddr(first)
		for range clients {
			got[table[Slot(a, len(table), Seed)]]++
			a = a.Next()
		}
		for i, c := range got {
			if c < clients/n*85/100 || c > clients/n*115/100 {
				t.Errorf("%s: endpoint %d has %d of %d clients", first, i, c, clients)
			}
		}
	}
}

func TestNone(t *testing.T) {
	if e := Endpoint(netip.MustParseAddr("10.0.0.1"), nil, nil); e.IsValid() {
		t.Errorf("%s of no endpoints", e)
	}
}

func BenchmarkTable(b *testing.B) {
	all := endpoints(10)
	for b.Loop() {
		_ = Table(all, nil, Size(len(all)))
	}
}
