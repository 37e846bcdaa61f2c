package podinit

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"
)

const (
	maxLine = 16 << 10 // bytes of one entry; a longer line is several, all but the last marked P
	maxLog  = 10 << 20 // bytes of one file; then it becomes FILE.1 and the one before that goes
)

// criLog writes a container's output in the format that the kubelet reads (CRI logging, KEP-1324 keeps it): time, stream, F for a full
// line or P for a part, the text.
type criLog struct {
	mu   sync.Mutex
	path string
	file *os.File
	size int64
}

// openLog opens the file for appending and makes its directories.
func openLog(path string) (*criLog, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("make log directory: %w", err)
	}
	l := &criLog{path: path}
	if err := l.open(); err != nil {
		return nil, err
	}
	return l, nil
}

func (l *criLog) open() error {
	f, err := os.OpenFile(l.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o640)
	if err != nil {
		return fmt.Errorf("open log: %w", err)
	}
	st, err := f.Stat()
	if err != nil {
		_ = f.Close()
		return fmt.Errorf("read size of log: %w", err)
	}
	l.file, l.size = f, st.Size()
	return nil
}

// Close ends the log.
func (l *criLog) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.file.Close()
}

// copyFrom writes everything that comes from r, until its end, as the stream "stdout" or "stderr".
func (l *criLog) copyFrom(stream string, r io.Reader) error {
	in := bufio.NewReaderSize(r, maxLine)
	for {
		line, err := in.ReadSlice('\n')
		full := err == nil
		if len(line) > 0 {
			if full {
				line = line[:len(line)-1]
			}
			if werr := l.write(stream, full || !errors.Is(err, bufio.ErrBufferFull), line); werr != nil {
				_, _ = io.Copy(io.Discard, in) // a full disk loses the log, but never blocks the container
				return werr
			}
		}
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return nil // end, or the terminal's EIO when its last user has gone
		}
	}
}

// write appends one entry.
func (l *criLog) write(stream string, full bool, text []byte) error {
	tag := " P "
	if full {
		tag = " F "
	}
	entry := make([]byte, 0, len(text)+64)
	entry = time.Now().UTC().AppendFormat(entry, "2006-01-02T15:04:05.000000000Z07:00")
	entry = append(entry, ' ')
	entry = append(entry, stream...)
	entry = append(entry, tag...)
	entry = append(entry, text...)
	entry = append(entry, '\n')
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.size > 0 && l.size+int64(len(entry)) > maxLog {
		if err := l.rotate(); err != nil {
			return err
		}
	}
	n, err := l.file.Write(entry)
	l.size += int64(n)
	if err != nil {
		return fmt.Errorf("write log: %w", err)
	}
	return nil
}

func (l *criLog) rotate() error {
	if err := os.Rename(l.path, l.path+".1"); err != nil {
		return fmt.Errorf("rotate log: %w", err)
	}
	_ = l.file.Close()
	return l.open()
}
