package relay

import (
	"errors"
	"io"
	"net"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// bufferSize is what is read at once while a connection is not a bulk transfer, and so what a reader that is slow makes the relay
	// hold for it: ten thousand of them 160 MB.
	bufferSize = 16 << 10
	// bulkSize is what is read at once by one of at most maxBulk bulk transfers that have no pipe.
	bulkSize = 128 << 10
	maxBulk  = 128
	// bulkAfter is how many full buffers in a row make a bulk transfer, which goes through a pipe without being copied (splice(2)).
	bulkAfter = 2
	// bulkIdle is how long a bulk transfer may pause before its pipe is given back.
	bulkIdle = 50 * time.Millisecond
)

// buffers are held only while there are bytes in them: an idle connection has none. Those of bulk are for bulk transfers without a pipe.
var (
	buffers = sync.Pool{New: func() any { b := make([]byte, bufferSize); return &b }}
	bulk    = sync.Pool{New: func() any { b := make([]byte, bulkSize); return &b }}
)

// join copies between two connections until both directions have ended. A direction that ends closes the other side for writing
// only; one that breaks resets both sides.
func (r *Relay) join(a, b *net.TCPConn) {
	var other sync.WaitGroup
	other.Go(func() { r.pass(a, b) })
	r.pass(b, a)
	other.Wait()
	_ = a.Close()
	_ = b.Close()
}

func (r *Relay) pass(dst, src *net.TCPConn) {
	if err := r.copy(dst, src); err != nil {
		reset(dst)
		reset(src)
		return
	}
	if err := dst.CloseWrite(); err != nil && !errors.Is(err, unix.ENOTCONN) && !errors.Is(err, net.ErrClosed) {
		reset(dst)
		reset(src)
	}
}

// copy copies until src ends.
func (r *Relay) copy(dst, src *net.TCPConn) error {
	from, err := src.SyscallConn()
	if err != nil {
		return err
	}
	full := 0
	for {
		n, err := passBuffer(dst, from, &buffers)
		if err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		if full++; n < bufferSize {
			full = 0
		}
		if full < bulkAfter {
			continue
		}
		full = 0
		if p, ok := r.pipes.get(); ok {
			err = p.bulk(dst, src, from)
			r.pipes.put(p, err)
		} else {
			err = r.bulkBuffers(dst, from)
		}
		if err != nil && !errors.Is(err, errPause) {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
	}
}

// bulkBuffers passes bytes through large buffers until there are few at once (errPause) or src ends (io.EOF).
func (r *Relay) bulkBuffers(dst *net.TCPConn, from syscall.RawConn) error {
	defer r.bulks.Add(-1)
	if r.bulks.Add(1) > maxBulk {
		return errPause
	}
	for {
		n, err := passBuffer(dst, from, &bulk)
		if err != nil {
			return err
		}
		if n < bufferSize {
			return errPause
		}
	}
}

// passBuffer waits until src has something to read and writes it to dst, by way of one of the buffers.
func passBuffer(dst *net.TCPConn, from syscall.RawConn, buffers *sync.Pool) (int, error) {
	var buf *[]byte
	n := 0
	var failed error
	err := from.Read(func(fd uintptr) bool {
		buf = buffers.Get().(*[]byte)
		for {
			n, failed = unix.Read(int(fd), *buf)
			if !errors.Is(failed, unix.EINTR) {
				break
			}
		}
		if errors.Is(failed, unix.EAGAIN) {
			buffers.Put(buf)
			buf = nil
			return false
		}
		return true
	})
	if buf != nil {
		defer buffers.Put(buf)
	}
	switch {
	case err != nil:
		return 0, err
	case failed != nil:
		return 0, failed
	case n == 0:
		return 0, io.EOF
	}
	return dst.Write((*buf)[:n])
}
