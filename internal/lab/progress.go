package lab

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"
)

// progress prints a line with the elapsed time for everything Up waited for.
type progress struct {
	start time.Time

	mu  sync.Mutex // nodes become ready side by side
	out io.Writer
}

func newProgress(out io.Writer) *progress {
	if out == nil {
		out = io.Discard
	}
	return &progress{start: time.Now(), out: out}
}

func (p *progress) done(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	fmt.Fprintf(p.out, "%5.1fs  %s\n", time.Since(p.start).Seconds(), fmt.Sprintf(format, args...))
}

// tail returns the last lines of a file, as much of them as its last 16 KiB hold.
func tail(file string, lines int) string {
	const most = 16 << 10
	f, err := os.Open(file)
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.Size() > most {
		if _, err := f.Seek(-most, io.SeekEnd); err != nil {
			return err.Error()
		}
	}
	text, err := io.ReadAll(io.LimitReader(f, most))
	if err != nil {
		return err.Error()
	}
	if len(strings.TrimSpace(string(text))) == 0 {
		return "(empty)"
	}
	return lastLines(string(text), lines)
}
