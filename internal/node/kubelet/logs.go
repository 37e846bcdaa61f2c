package kubelet

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"time"

	"weft/internal/runtime"
)

// followPeriod is how often a followed log is looked at.
const followPeriod = 50 * time.Millisecond

// logOptions is what kubectl logs may ask for.
type logOptions struct {
	follow, timestamps, previous bool
	tail                         int64     // lines from the end, -1: all
	since                        time.Time // nothing older
	limit                        int64     // bytes, -1: no limit
}

// parseLogOptions reads the query of a containerLogs request.
func parseLogOptions(q url.Values, now time.Time) (logOptions, error) {
	o := logOptions{
		follow: truth(q.Get("follow")), timestamps: truth(q.Get("timestamps")), previous: truth(q.Get("previous")), tail: -1, limit: -1,
	}
	var err error
	if o.tail, err = count(q, "tailLines", 0); err != nil {
		return o, err
	}
	if o.limit, err = count(q, "limitBytes", 1); err != nil {
		return o, err
	}
	age, err := count(q, "sinceSeconds", 1)
	if err != nil {
		return o, err
	}
	if age > 0 {
		o.since = now.Add(-time.Duration(age) * time.Second)
	}
	if text := q.Get("sinceTime"); text != "" {
		if age > 0 {
			return o, errors.New("at most one of sinceSeconds and sinceTime may be given")
		}
		if o.since, err = time.Parse(time.RFC3339, text); err != nil {
			return o, fmt.Errorf("sinceTime %q: give a time as RFC 3339 writes it", text)
		}
	}
	return o, nil
}

func truth(text string) bool {
	b, err := strconv.ParseBool(text)
	return err == nil && b
}

// count reads a number of at least low, -1 when it is not given.
func count(q url.Values, name string, low int64) (int64, error) {
	text := q.Get(name)
	if text == "" {
		return -1, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < low {
		return 0, fmt.Errorf("%s %q: give a number of at least %d", name, text, low)
	}
	return n, nil
}

func (s *server) logs(w http.ResponseWriter, r *http.Request) {
	o, err := parseLogOptions(r.URL.Query(), time.Now())
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	l, err := s.Config.Pods.Log(r.PathValue("namespace"), r.PathValue("pod"), r.PathValue("container"), o.previous)
	if err != nil {
		status := http.StatusBadRequest
		if errors.Is(err, runtime.ErrNotFound) {
			status = http.StatusNotFound
		}
		http.Error(w, err.Error(), status)
		return
	}
	w.Header().Set("Content-Type", "text/plain")
	out := &limitWriter{to: w, left: o.limit, flush: http.NewResponseController(w).Flush}
	if err := copyLog(r.Context(), l, o, sink{out: out, err: out}); err != nil && !errors.Is(err, errLimit) && r.Context().Err() == nil {
		s.Config.Log.Debug("log not sent", "path", l.Path, "err", err)
		if !out.wrote {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	}
}

// sink is where the lines of the two streams go.
type sink struct{ out, err io.Writer }

// errLimit says that all that was wanted has been written.
var errLimit = errors.New("limit reached")

// limitWriter passes on a number of bytes, each write at once.
type limitWriter struct {
	to    io.Writer
	flush func() error
	left  int64 // -1: no limit
	wrote bool
}

// Write writes what the limit leaves; errLimit when there is nothing left.
func (l *limitWriter) Write(p []byte) (int, error) {
	all := len(p)
	if l.left >= 0 && int64(all) > l.left {
		p = p[:l.left]
	}
	n, err := l.to.Write(p)
	l.wrote = l.wrote || n > 0
	if l.left >= 0 {
		l.left -= int64(n)
	}
	if err == nil && l.flush != nil {
		err = l.flush()
	}
	if err == nil && n < all {
		err = errLimit
	}
	return n, err
}

// copyLog writes the entries of a log that o asks for, and with follow those that come, until the container has ended.
func copyLog(ctx context.Context, l Log, o logOptions, to sink) error {
	f, err := openLog(l.Path)
	if err != nil {
		return err
	}
	defer func() { f.Close() }()
	if o.tail >= 0 {
		at, err := tailOffset(f, o.tail)
		if err != nil {
			return fmt.Errorf("find the last %d lines: %w", o.tail, err)
		}
		if _, err := f.Seek(at, io.SeekStart); err != nil {
			return fmt.Errorf("find the last %d lines: %w", o.tail, err)
		}
	}
	p := &printer{options: o, to: to, fresh: map[string]bool{"stdout": true, "stderr": true}}
	tick := time.NewTicker(followPeriod)
	defer tick.Stop()
	for {
		alive := l.Running() // asked before reading: what a container wrote before it ended is in the file when it has ended
		if err := p.pump(ctx, f); err != nil {
			return err
		}
		if !o.follow {
			return nil
		}
		if next := rotated(f, l.Path); next != nil {
			err := p.pump(ctx, f) // what was written before the new file was made
			f.Close()
			f = next
			if err != nil {
				return err
			}
			continue
		}
		if !alive {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func openLog(path string) (*os.File, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("log file: %w", runtime.ErrNotFound)
	}
	if err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	return f, nil
}

// rotated returns the file that is at path now, opened, when f is an older one.
func rotated(f *os.File, path string) *os.File {
	old, err := f.Stat()
	if err != nil {
		return nil
	}
	now, err := os.Stat(path)
	if err != nil || os.SameFile(old, now) {
		return nil
	}
	next, err := os.Open(path)
	if err != nil {
		return nil
	}
	return next
}

// pump prints the whole lines up to the end of the file; a line's beginning is kept for the next time.
func (p *printer) pump(ctx context.Context, f io.Reader) error {
	buf := make([]byte, 64<<10)
	for ctx.Err() == nil {
		n, err := f.Read(buf)
		var perr error
		if p.rest, perr = p.lines(append(p.rest, buf[:n]...)); perr != nil {
			return perr
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read log: %w", err)
		}
	}
	return nil
}

// maxLine bounds a line that never ends: a file that is no log.
const maxLine = 1 << 20

// lines prints all whole lines of data and returns what is left.
func (p *printer) lines(data []byte) ([]byte, error) {
	for {
		i := bytes.IndexByte(data, '\n')
		if i < 0 {
			if len(data) > maxLine {
				data = nil
			}
			return data, nil
		}
		if err := p.line(data[:i]); err != nil {
			return nil, err
		}
		data = data[i+1:]
	}
}

// printer turns entries into what kubectl shows.
type printer struct {
	options logOptions
	to      sink
	fresh   map[string]bool // the stream is at the start of a line
	rest    []byte          // the beginning of a line whose end is not written yet
}

func (p *printer) line(line []byte) error {
	e, ok := parseEntry(line)
	if !ok || e.time.Before(p.options.since) {
		return nil
	}
	out := make([]byte, 0, len(e.text)+40)
	if p.options.timestamps && p.fresh[e.stream] {
		out = append(append(out, e.stamp...), ' ')
	}
	out = append(out, e.text...)
	if !e.partial {
		out = append(out, '\n')
	}
	p.fresh[e.stream] = !e.partial
	w := p.to.out
	if e.stream == "stderr" {
		w = p.to.err
	}
	_, err := w.Write(out)
	return err
}

// entry is one line of a log in the CRI format: time, stream, P for a part of a line or F for its end, text.
type entry struct {
	time    time.Time
	stamp   []byte
	stream  string
	partial bool
	text    []byte
}

func parseEntry(line []byte) (entry, bool) {
	stamp, rest, ok := bytes.Cut(line, []byte(" "))
	stream, rest, ok2 := bytes.Cut(rest, []byte(" "))
	tags, text, ok3 := bytes.Cut(rest, []byte(" "))
	if !ok || !ok2 {
		return entry{}, false
	}
	if !ok3 {
		text = nil
	}
	at, err := time.Parse(time.RFC3339Nano, string(stamp))
	name := string(stream)
	if err != nil || name != "stdout" && name != "stderr" {
		return entry{}, false
	}
	tag, _, _ := bytes.Cut(tags, []byte(":"))
	if string(tag) != "F" && string(tag) != "P" {
		return entry{}, false
	}
	return entry{time: at, stamp: stamp, stream: name, partial: string(tag) == "P", text: text}, true
}

// tailOffset returns where the last n lines of f begin; a part of a line belongs to the line it is of.
func tailOffset(f io.ReadSeeker, n int64) (int64, error) {
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil || n == 0 {
		return size, err
	}
	for window := int64(64 << 10); ; window *= 2 {
		window = min(window, size)
		end := make([]byte, window)
		if _, err := f.Seek(size-window, io.SeekStart); err != nil {
			return 0, err
		}
		if _, err := io.ReadFull(f, end); err != nil {
			return 0, err
		}
		if at, ok := lastLines(end, n, window == size); ok {
			return size - window + int64(at), nil
		}
		if window == size {
			return 0, nil
		}
	}
}

// lastLines returns where in data the last n whole lines begin. Unless data is the whole file its first, cut line does not count.
func lastLines(data []byte, n int64, whole bool) (int, bool) {
	end := bytes.LastIndexByte(data, '\n')
	if end < 0 {
		return 0, whole
	}
	for at := end; ; {
		start := bytes.LastIndexByte(data[:at], '\n') + 1
		if start == 0 && !whole {
			return 0, false
		}
		e, ok := parseEntry(data[start:at])
		if ok && !e.partial { // the end of a line
			if n == 0 {
				return at + 1, true
			}
			n--
		}
		if start == 0 {
			return 0, true
		}
		at = start - 1
	}
}
