package relay

import (
	"cmp"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// pipeSize is the capacity of a pipe in bytes, where the kernel allows it (pipe(7), pipe-user-pages-soft).
	pipeSize = 1 << 20
	// minPipe is the smallest capacity that is worth it. A user who has used up pipe-user-pages-soft gets pipes of two pages, through which
	// a bulk transfer is several times as slow as through a buffer; for smallFor nobody is asked again.
	minPipe  = 128 << 10
	smallFor = 10 * time.Second
	// maxPipes bounds the pipes in use: more bulk transfers at once go through buffers.
	maxPipes = 128
	// keepPipes bounds the unused ones.
	keepPipes = 16
)

// errPause says that a bulk transfer has nothing to do for now; the pipe is empty.
var errPause = errors.New("pause")

// pipe is where splice(2) keeps the bytes on their way from one socket to another.
type pipe struct{ r, w int }

// filesPipe are the descriptors of a pipe.
const filesPipe = 2

// pipePool lends pipes. Their descriptors count as those of sessions do, but a session without one only copies.
type pipePool struct {
	limit *limit
	least int // the smallest capacity to lend, 0: minPipe

	mu    sync.Mutex
	free  []pipe
	used  int
	small time.Time // the kernel gave a small one then
	shut  bool
}

// get returns an empty pipe; false when there are too many, or the kernel has none.
func (p *pipePool) get() (pipe, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.shut || p.used >= maxPipes || time.Since(p.small) < smallFor {
		return pipe{}, false
	}
	p.used++
	if n := len(p.free); n > 0 {
		q := p.free[n-1]
		p.free = p.free[:n-1]
		return q, true
	}
	var fds [2]int
	if !p.limit.spare(filesPipe) {
		p.used--
		return pipe{}, false
	}
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		p.limit.release(filesPipe)
		p.used--
		return pipe{}, false
	}
	q := pipe{fds[0], fds[1]}
	_, _ = unix.FcntlInt(uintptr(q.w), unix.F_SETPIPE_SZ, pipeSize) // refused: smaller, but right
	if size, err := unix.FcntlInt(uintptr(q.w), unix.F_GETPIPE_SZ, 0); err != nil || size < cmp.Or(p.least, minPipe) {
		p.used--
		p.shred(q)
		p.small = time.Now()
		return pipe{}, false
	}
	return q, true
}

// put takes a pipe back after bulk ended with err: it's empty after errPause and io.EOF only.
func (p *pipePool) put(q pipe, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.used--
	if p.shut || len(p.free) >= keepPipes || !errors.Is(err, errPause) && !errors.Is(err, io.EOF) {
		p.shred(q)
		return
	}
	p.free = append(p.free, q)
}

func (p *pipePool) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.shut = true
	for _, q := range p.free {
		p.shred(q)
	}
	p.free = nil
}

func (p *pipePool) shred(q pipe) {
	_ = unix.Close(q.r)
	_ = unix.Close(q.w)
	p.limit.release(filesPipe)
}

// bulk passes bytes from src to dst until src ends (io.EOF) or pauses (errPause).
func (q pipe) bulk(dst, src *net.TCPConn, from syscall.RawConn) error {
	to, err := dst.SyscallConn()
	if err != nil {
		return err
	}
	defer func() { _ = src.SetReadDeadline(time.Time{}) }()
	var deadline time.Time
	for {
		if now := time.Now(); deadline.Sub(now) < bulkIdle/2 {
			deadline = now.Add(bulkIdle)
			if err := src.SetReadDeadline(deadline); err != nil {
				return err
			}
		}
		n, err := q.fill(from)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return errPause
		}
		if err != nil {
			return err
		}
		if n == 0 {
			return io.EOF
		}
		if err := q.drain(to, n); err != nil {
			return err
		}
	}
}

// fill moves what the socket has into the empty pipe. It waits until the socket's deadline.
func (q pipe) fill(from syscall.RawConn) (n int, err error) {
	wait := from.Read(func(fd uintptr) bool {
		n, err = splice(int(fd), q.w, pipeSize)
		return !errors.Is(err, unix.EAGAIN)
	})
	if wait != nil {
		return 0, wait
	}
	return n, err
}

// drain moves n bytes from the pipe to the socket.
func (q pipe) drain(to syscall.RawConn, n int) error {
	for n > 0 {
		var moved int
		var err error
		wait := to.Write(func(fd uintptr) bool {
			moved, err = splice(q.r, int(fd), n)
			return !errors.Is(err, unix.EAGAIN)
		})
		if wait != nil {
			return wait
		}
		if err != nil {
			return err
		}
		n -= moved
	}
	return nil
}

func splice(from, to, n int) (int, error) {
	for {
		m, err := unix.Splice(from, nil, to, nil, n, unix.SPLICE_F_NONBLOCK|unix.SPLICE_F_MOVE)
		if !errors.Is(err, unix.EINTR) {
			return int(m), err
		}
	}
}
