package probe

import (
	"errors"
	"fmt"
	"testing"

	"github.com/vishvananda/netlink"
)

// TestWhole reads a list that changes while it is read, a few times and for ever.
func TestWhole(t *testing.T) {
	for _, x := range []struct{ interrupted, reads int }{{0, 1}, {3, 4}, {100, dumpTries}} {
		reads := 0
		list, err := whole(func() ([]int, error) {
			if reads++; reads <= x.interrupted {
				return []int{1}, fmt.Errorf("dump: %w", netlink.ErrDumpInterrupted)
			}
			return []int{1, 2}, nil
		})
		if ok := x.interrupted < dumpTries; reads != x.reads || ok != (err == nil && len(list) == 2) {
			t.Errorf("%d times interrupted: %v, %v after %d reads", x.interrupted, list, err, reads)
		}
	}
	other := errors.New("no")
	if _, err := whole(func() ([]int, error) { return nil, other }); !errors.Is(err, other) {
		t.Errorf("have %v", err)
	}
}
