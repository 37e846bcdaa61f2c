package rtnl

import (
	"context"
	"fmt"

	"golang.org/x/sys/unix"
)

// Rename gives a link of ours another name. What is on it stays: addresses, routes, neighbours. The kernel does it to a link that is up
// since 6.2; an older one refuses (EBUSY).
func (h *Handle) Rename(ctx context.Context, from, to string) error {
	release, err := h.lock(ctx)
	if err != nil {
		return err
	}
	defer release()
	l, err := h.linkByName(from)
	if err != nil {
		return err
	}
	if !l.Owned() {
		return fmt.Errorf("rename %s: %w", from, ErrOthers)
	}
	b := linkMessage(unix.RTM_NEWLINK, 0, l.index, 0, 0)
	b.Text(unix.IFLA_IFNAME, to)
	b.End()
	errs, err := h.conn.Batch(b)
	if err == nil {
		err = errs[0]
	}
	if err != nil {
		return fmt.Errorf("rename %s to %s: %w", from, to, err)
	}
	return nil
}
