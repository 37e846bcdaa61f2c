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
// interface. ErrSilent says that not even Floor is. It sends at most 3 packets of the ceiling's size and of Floor, and 3 for each halving of
// what lies between.
func (p *Prober) Path(ctx context.Context, to netip.Addr, ceiling int) (int, error) {
	floor := min(Floor, ceiling)
	got, rtt := p.try(ctx, to, floor, ceiling)
	switch {
	case ctx.Err() != nil:
		return 0, ctx.Err()
	case got == 0:
		return 0, ErrSilent
	case got == ceiling:
		return ceiling, nil
	}
	mtu := search(floor, ceiling, func(size int) bool { return p.fits(ctx, to, size, waitFor(rtt)) })
	return mtu, ctx.Err()
}

// Larger returns the larger of two packet sizes in bytes that is answered, 0 when neither is. It sends at most 3 of each.
func (p *Prober) Larger(ctx context.Context, to netip.Addr, small, large int) int {
	got, _ := p.try(ctx, to, small, large)
	return got
}

// try sends packets of both sizes until the large one is answered, and also returns the round trip time of the small one.
func (p *Prober) try(ctx context.Context, to netip.Addr, small, large int) (got int, rtt time.Duration) {
	for range tries {
		fits, took := p.both(ctx, to, small, large)
		if fits == large {
			return large, took
		}
		if fits == small {
			got, rtt = small, took
		}
		if ctx.Err() != nil {
			break
		}
	}
	return got, rtt
}

// both sends one packet of each size. The large one's answer may come a little later than the small one's, but not much.
func (p *Prober) both(ctx context.Context, to netip.Addr, small, large int) (fits int, rtt time.Duration) {
	begun := time.Now()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	answer := make(chan bool, 1)
	go func() { answer <- small < large && p.echo(ctx, to, large, firstWait) }()
	if p.echo(ctx, to, small, firstWait) {
		fits, rtt = small, time.Since(begun)
		late := time.AfterFunc(waitFor(rtt), stop)
		defer late.Stop()
	}
	if <-answer {
		fits = large
	}
	return fits, rtt
}

func (p *Prober) fits(ctx context.Context, to netip.Addr, size int, wait time.Duration) bool {
	for range tries {
		if p.echo(ctx, to, size, wait) {
			return true
		}
	}
	return false
}

// waitFor is how long an answer may take on a path with the round trip time.
func waitFor(rtt time.Duration) time.Duration {
	return min(max(4*rtt, minWait), firstWait)
}

// search returns the largest size that fits, where good does and bad does not.
func search(good, bad int, fits func(int) bool) int {
	for bad-good > 1 {
		mid := (good + bad) / 2
		if fits(mid) {
			good = mid
		} else {
			bad = mid
		}
	}
	return good
}
