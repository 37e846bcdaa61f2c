package leases

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"weft/internal/lease"
	"weft/internal/store"
	"weft/internal/store/etcd"
)

// StatusOf is what is said of the lease a Keeper keeps; believes is whether new pods may get addresses of it.
func StatusOf(s store.Status, now time.Time) (l Status, believes bool) {
	return Status{
		Phase: s.Phase.String(), Permanent: s.Permanent, Expires: s.Own.Expiry, Problem: s.Problem, Since: s.Since,
		Refused: refusedOf(s.Refused),
	}, s.Believes(now)
}

// Waiting for the store at the start.
const (
	askAgain = time.Second
	remind   = 30 * time.Second // what is waited for is said again
)

// WaitConfig reads the network configuration; a host may start before its store, and before the configuration. It waits for ever, and says
// what for. Only what no waiting helps against is an error: etcd does not let this identity in, or cannot be trusted.
func WaitConfig(ctx context.Context, kv *etcd.Client, log *slog.Logger) (lease.Config, error) {
	said, at := "", time.Time{}
	for {
		_, c, err := kv.NetworkConfig(ctx)
		if err == nil || ctx.Err() != nil || errors.Is(err, etcd.ErrDenied) {
			return c, err
		}
		if err.Error() != said || time.Since(at) > remind {
			log.Warn("waiting for the network configuration", "err", err)
			said, at = err.Error(), time.Now()
		}
		again := time.NewTimer(askAgain)
		select {
		case <-ctx.Done():
		case <-again.C:
		}
		again.Stop()
	}
}
