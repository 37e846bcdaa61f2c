package interop

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"time"

	"weft/internal/lab"
)

// stream is datagrams every few milliseconds and one TCP connection, there and back, until it is ended.
type stream struct {
	what string
	stop func()
	out  chan flowOrError
}

type flowOrError struct {
	flow
	err error
}

// stream begins one from the host's pod, or from the host itself, and returns when it runs.
func (h *host) stream(fromPod bool, to netip.Addr) *stream {
	h.t.Helper()
	argv := []string{probeName, "stream", to.String()}
	what := "host " + h.name + " to " + to.String()
	if fromPod {
		argv = append(strings.Fields(h.enter), argv...)
		what = "pod of " + what
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	in, stop := io.Pipe()
	s := &stream{what: what, out: make(chan flowOrError, 1), stop: func() { _ = stop.Close() }}
	got, sink := io.Pipe()
	var stderr strings.Builder
	done := make(chan error, 1)
	go func() {
		err := h.ExecIO(ctx, h.name, lab.Stdio{In: in, Out: sink, Err: &stderr}, argv...)
		_ = sink.Close()
		_ = in.Close()
		done <- err
	}()
	r := bufio.NewReader(got)
	begun := make(chan error, 1)
	go func() {
		defer cancel()
		line, err := r.ReadString('\n')
		if strings.TrimSpace(line) != "begun" {
			begun <- fmt.Errorf("%q, %w", line, err)
			return
		}
		begun <- nil
		var f flow
		err = json.NewDecoder(r).Decode(&f)
		if exit := <-done; exit != nil {
			err = fmt.Errorf("%w: %s", exit, stderr.String())
		}
		s.out <- flowOrError{f, err}
	}()
	if err := <-begun; err != nil {
		h.t.Fatalf("%s: %v: %s", what, err, stderr.String())
	}
	h.t.Cleanup(s.stop)
	return s
}

// end stops the stream and reports what it saw.
func (s *stream) end() (flow, error) {
	s.stop()
	f := <-s.out
	if f.err != nil {
		return f.flow, fmt.Errorf("%s: %w", s.what, f.err)
	}
	return f.flow, nil
}

// unbroken ends streams and demands that nothing was lost; where the overlay can't but lose, that every connection goes on.
func (w world) unbroken(all []*stream, lossy bool) {
	w.t.Helper()
	for _, s := range all {
		s.stop()
	}
	for _, s := range all {
		f, err := s.end()
		if err != nil {
			w.t.Error(err)
			continue
		}
		w.t.Logf("%-28s %5d datagrams, %d lost, longest gap %4d ms, TCP %5d kB", s.what, f.Sent, f.Lost, f.Gap.Milliseconds(), f.Bytes>>10)
		if f.Lost > 0 && !lossy || f.Broken != "" || f.Bytes == 0 {
			w.t.Errorf("%s: broken %q", s.what, f.Broken)
			for _, h := range f.Holes {
				w.t.Logf("  %d lost from %s on", h.N, h.At.UTC().Format("15:04:05.000"))
			}
		}
	}
}
