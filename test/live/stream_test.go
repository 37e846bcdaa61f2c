package live

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"sync"
	"testing"
	"time"

	"weft/internal/lab"
	"weft/test/labtest"
)

// stream is one TCP connection between two pods that carries a line every few milliseconds there and back, all the while.
type stream struct {
	mu   sync.Mutex
	at   []time.Time // when each answer came
	sent int
	err  error
	stop context.CancelFunc
	done chan struct{}
}

const pause = 5 * time.Millisecond

// netnsOf is how a pod's network namespace is entered on its host.
const netnsOf = `nsenter --net=$(grep -A6 '"Name": "%s"' /run/weft/attachments.json | grep -o '/[^"]*' | tail -1) `

func (c *cluster) stream(host, pod, addr string) *stream {
	ctx, stop := context.WithCancel(context.Background())
	s := &stream{stop: stop, done: make(chan struct{})}
	in, feed := io.Pipe()
	out, sink := io.Pipe()
	go func() {
		command := fmt.Sprintf("exec "+netnsOf+"busybox nc %s 9000", pod, addr)
		err := c.ExecIO(ctx, host, lab.Stdio{In: in, Out: sink}, "sh", "-c", command)
		s.mu.Lock()
		s.err = err
		s.mu.Unlock()
		_ = sink.Close()
		_ = in.Close()
	}()
	go func() {
		tick := time.NewTicker(pause)
		defer tick.Stop()
		for ctx.Err() == nil {
			<-tick.C
			if _, err := fmt.Fprintf(feed, "line %d of a transfer that nothing may break\n", s.sent); err != nil {
				return
			}
			s.mu.Lock()
			s.sent++
			s.mu.Unlock()
		}
		_ = feed.Close()
	}()
	go func() {
		defer close(s.done)
		for scan := bufio.NewScanner(out); scan.Scan(); {
			s.mu.Lock()
			s.at = append(s.at, time.Now())
			s.mu.Unlock()
		}
	}()
	return s
}

func (s *stream) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.at)
}

// gap is the longest silence since a moment.
func (s *stream) gap(since time.Time) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	longest, last := time.Duration(0), since
	for _, t := range s.at {
		if t.Before(since) {
			continue
		}
		longest, last = max(longest, t.Sub(last)), t
	}
	return max(longest, time.Since(last))
}

// alive waits until answers come again and fails the test when the connection broke.
func (s *stream) alive(t *testing.T, limit time.Duration) {
	t.Helper()
	n := s.count()
	labtest.Eventually(t, "the connection between the pods goes on", limit, func() error {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.err != nil {
			t.Fatalf("the connection between the pods broke after %d lines: %v", len(s.at), s.err)
		}
		if len(s.at) <= n+2 {
			return fmt.Errorf("%d lines sent, %d came back", s.sent, len(s.at))
		}
		return nil
	})
}

func (s *stream) close(t *testing.T) {
	t.Helper()
	s.mu.Lock()
	sent, err := s.sent, s.err
	s.mu.Unlock()
	if err != nil {
		t.Errorf("the connection between the pods broke: %v", err)
	}
	labtest.Eventually(t, "every line comes back", 10*time.Second, func() error {
		if n := s.count(); n < sent {
			return fmt.Errorf("%d of %d lines", n, sent)
		}
		return nil
	})
	s.stop()
	<-s.done
}
