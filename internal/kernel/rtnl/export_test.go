package rtnl

import (
	"context"
	"net/netip"
	"testing"

	"weft/internal/kernel/netns"
	"weft/internal/netstate"
)

// Block runs f while Watch can't look at events.
func (h *Handle) Block(f func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	f()
}

// Churn adds and deletes routes that are nobody's until it has caused about n events.
func Churn(t *testing.T, ns string, n int) int {
	t.Helper()
	var h *Handle
	err := netns.Do(ns, func() (err error) {
		h, err = Open()
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	done := 0
	for done < n {
		var add, del []netstate.Op
		for i := range 1000 {
			r := netstate.Route{
				Type: "blackhole", Dst: netip.PrefixFrom(netip.AddrFrom4([4]byte{100, 64, byte(i >> 8), byte(i)}), 32), Table: 99, Proto: 4,
			}
			add = append(add, netstate.Op{Object: r})
			del = append(del, netstate.Op{Verb: netstate.Del, Object: r})
		}
		if err := h.Apply(context.Background(), append(add, del...)); err != nil {
			t.Fatal(err)
		}
		done += 2000
	}
	return done
}
