package pmtu

import (
	"context"
	"net/netip"
	"time"
)

// How an answer is waited for. Three lost in a row are no accident.
const (
	tries     = 3
	firstWait = time.Second // nothing is known of the round trip yet
	minWait   = 50 * time.Millisecond
)

// Path returns the MTU in bytes of the path to a host: the largest packet that is answered, at most the ceiling, which is the MTU of the
// interface. ErrSilent says that not even Floor is. It sends at most 3 packets of the ceiling's size and 3 of Floor, and as many for each
// halving of what lies between.
func (p *Prober) Path(ctx context.Context, to netip.Addr, ceiling int) (int, error) {
	floor := min(Floor, ceiling)
	got := p.try(ctx, to, floor, ceiling)
	switch {
	case ctx.Err() != nil:
		return 0, ctx.Err()
	case got == 0:
		return 0, ErrSilent
	case got == ceiling:
		return ceiling, nil
	}
	return search(floor, ceiling, func(size int) (bool, error) {
		got := p.try(ctx, to, floor, size)
		switch {
		case ctx.Err() != nil:
			return false, ctx.Err()
		case got == 0: // it was not the size: the host, or who limits the rate of echo requests, answers nothing now
			return false, ErrSilent
		}
		return got == size, nil
	})
}

// Larger returns the larger of two packet sizes in bytes that is answered, 0 when neither is. It sends at most 3 of each.
func (p *Prober) Larger(ctx context.Context, to netip.Addr, small, large int) int {
	return p.try(ctx, to, small, large)
}

// try sends packets of both sizes until the large one is answered.
func (p *Prober) try(ctx context.Context, to netip.Addr, small, large int) int {
	got := 0
	for range tries {
		switch p.both(ctx, to, small, large) {
		case large:
			return large
		case small:
			got = small
		}
		if ctx.Err() != nil {
			break
		}
	}
	return got
}

// both sends one packet of each size and returns the larger that is answered, 0 for none. The large one goes first: who limits the rate of
// echo requests then lets it pass rather than the small one, and does not look like a narrow path. Its answer may come a little later than
// the small one's, but not much.
func (p *Prober) both(ctx context.Context, to netip.Addr, small, large int) int {
	begun := time.Now()
	var largeAnswer <-chan struct{}
	if small < large {
		var k key
		largeAnswer, k = p.start(to, large)
		defer p.forget(k)
	}
	smallAnswer, k := p.start(to, small)
	defer p.forget(k)
	got, limit := 0, time.NewTimer(firstWait)
	defer limit.Stop()
	for {
		select {
		case <-largeAnswer:
			return large
		case <-smallAnswer:
			got, smallAnswer = small, nil
			if small >= large {
				return got
			}
			limit.Reset(min(waitFor(time.Since(begun)), firstWait))
		case <-limit.C:
			return got
		case <-ctx.Done():
			return got
		}
	}
}

// waitFor is how much longer than a small packet's round trip time a large one's may take.
func waitFor(rtt time.Duration) time.Duration {
	return min(max(4*rtt, minWait), firstWait)
}

// search returns the largest size that fits, where good does and bad does not.
func search(good, bad int, fits func(int) (bool, error)) (int, error) {
	for bad-good > 1 {
		mid := (good + bad) / 2
		ok, err := fits(mid)
		switch {
		case err != nil:
			return 0, err
		case ok:
			good = mid
		default:
			bad = mid
		}
	}
	return good, nil
}
