package proxy_test

import (
	"net/netip"
	"slices"
	"testing"

	"weft/internal/api"
	"weft/internal/proxy"
)

func weighted(weights ...uint8) (s api.ServicePort, list []netip.AddrPort) {
	for i, w := range weights {
		a := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 80)
		s.Endpoints = append(s.Endpoints, api.Endpoint{Addr: a, Ready: true, Weight: w})
		list = append(list, a)
	}
	return s, list
}

func TestWeights(t *testing.T) {
	for _, c := range []struct{ weights, want []uint8 }{
		{nil, nil},
		{[]uint8{0, 0, 1}, nil},
		{[]uint8{7, 7}, nil},
		{[]uint8{0, 3, 1}, []uint8{1, 3, 1}},
	} {
		s, list := weighted(c.weights...)
		if got := proxy.Weights(s, list); !slices.Equal(got, c.want) {
			t.Errorf("%v: %v, want %v", c.weights, got, c.want)
		}
	}
	s, list := weighted(2, 4, 4)
	if got := proxy.Weights(s, list[1:]); got != nil {
		t.Errorf("a part with equal weights: %v", got)
	}
}

func TestSpread(t *testing.T) {
	for _, c := range []struct {
		weights []uint8
		most    int
		want    []int
	}{
		{[]uint8{1, 3}, 256, []int{1, 3}},
		{[]uint8{10, 30, 20}, 256, []int{1, 3, 2}},
		{[]uint8{1, 100}, 16, []int{1, 15}},
		{[]uint8{1, 1, 1, 100}, 3, []int{1, 1, 1, 3}}, // each is in it
	} {
		_, list := weighted(c.weights...)
		got := make([]int, len(list))
		for _, a := range proxy.Spread(list, c.weights, c.most) {
			got[slices.Index(list, a)]++
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%v in %d: %v, want %v", c.weights, c.most, got, c.want)
		}
	}
	_, list := weighted(0, 0)
	if got := proxy.Spread(list, nil, 1); !slices.Equal(got, list) {
		t.Errorf("without weights: %v", got)
	}
}
