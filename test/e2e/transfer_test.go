package e2e

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// transfer is a TCP connection between pods of two nodes over which one sends until it is told to end.
type transfer struct {
	c        *cluster
	from, to object
	stop     context.CancelFunc
	watching sync.WaitGroup

	mu    sync.Mutex
	bytes int           // that came in by the overlay
	gap   time.Duration // longest time in which none came
	err   error
}

// Files of a transfer on the nodes: pods of runtime/process see their node's files.
const (
	tellEnd      = "/tmp/transfer-end"
	tellSent     = "/tmp/transfer-sent"
	tellReceived = "/tmp/transfer-received"
)

// transfer begins to send from one node's pod to the other's, and watches it.
func (c *cluster) transfer(t *testing.T, from, to object) *transfer {
	t.Helper()
	c.kubectl(t, "exec", from.Metadata.Name, "--", "sh", "-c", `(
		n=0; while [ ! -e `+tellEnd+` ]; do head -c 1048576 /dev/zero; n=$((n+1)); done
		echo $n > `+tellSent+`.new; mv `+tellSent+`.new `+tellSent+`
	) 2>/dev/null | busybox nc -l -p 9000 >/dev/null 2>&1 &`)
	eventually(t, "the sender", 10*time.Second, func() error {
		if out := c.kubectl(t, "exec", from.Metadata.Name, "--", "ss", "-Hltn", "sport = :9000"); out == "" {
			return fmt.Errorf("nothing listens")
		}
		return nil
	})
	// The receiver's standard input never ends, or nc would.
	c.kubectl(t, "exec", to.Metadata.Name, "--", "sh", "-c", `mkfifo /tmp/transfer-open; (
		busybox nc `+from.Status.PodIP+` 9000 <>/tmp/transfer-open | wc -c > `+tellReceived+`.new
		mv `+tellReceived+`.new `+tellReceived+`
	) >/dev/null 2>&1 &`)
	ctx, stop := context.WithCancel(t.Context())
	tr := &transfer{c: c, from: from, to: to, stop: stop}
	tr.watching.Go(func() { tr.watch(ctx) })
	t.Cleanup(func() {
		stop()
		tr.watching.Wait()
	})
	tr.more(t, 1<<20)
	return tr
}

// watch looks at the receiving node's overlay device every few milliseconds.
func (tr *transfer) watch(ctx context.Context) {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	last, at := 0, time.Now()
	for {
		text, err := tr.c.ReadFile(ctx, tr.to.Spec.NodeName, "/sys/class/net/flannel.1/statistics/rx_bytes")
		if ctx.Err() != nil {
			return
		}
		n, convErr := strconv.Atoi(strings.TrimSpace(string(text)))
		now := time.Now()
		tr.mu.Lock()
		switch {
		case err != nil || convErr != nil:
			tr.err = fmt.Errorf("read counter: %w %w", err, convErr)
		case n < last+10000: // less is not the transfer
			tr.gap = max(tr.gap, now.Sub(at))
		default:
			if last > 0 {
				tr.gap = max(tr.gap, now.Sub(at))
				tr.bytes += n - last
			}
			last, at = n, now
		}
		tr.mu.Unlock()
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (tr *transfer) progress() (int, time.Duration, error) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	return tr.bytes, tr.gap, tr.err
}

// usual is the longest time without a packet so far, which no longer counts: what the sender and the machine make of it by themselves.
func (tr *transfer) usual() time.Duration {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	gap := tr.gap
	tr.gap = 0
	return gap
}

// more waits until so many more bytes have come.
func (tr *transfer) more(t *testing.T, bytes int) {
	t.Helper()
	before, _, _ := tr.progress()
	eventually(t, "progress of the transfer", 20*time.Second, func() error {
		now, _, err := tr.progress()
		if err == nil && now < before+bytes {
			err = fmt.Errorf("%d of %d bytes", now-before, bytes)
		}
		return err
	})
}

// end lets the sender end and returns what both sides counted and the longest time without a packet.
func (tr *transfer) end(t *testing.T) (sent, received int, gap time.Duration) {
	t.Helper()
	tr.stop()
	tr.watching.Wait()
	_, gap, _ = tr.progress()
	tr.c.must(t, tr.from.Spec.NodeName, "touch "+tellEnd)
	count := func(node, file string) (n int) {
		eventually(t, file, 20*time.Second, func() error {
			text, err := tr.c.ReadFile(t.Context(), node, file)
			if err != nil {
				return err
			}
			n, err = strconv.Atoi(strings.TrimSpace(string(text)))
			return err
		})
		return n
	}
	return count(tr.from.Spec.NodeName, tellSent) << 20, count(tr.to.Spec.NodeName, tellReceived), gap
}
