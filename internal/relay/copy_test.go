package relay

import (
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"syscall"
	"testing"
	"time"
)

func TestHalfClose(t *testing.T) {
	echo := backend(t, func(c *net.TCPConn) {
		b, _ := io.ReadAll(c) // until the client has said all
		_, _ = c.Write(append([]byte("you said "), b...))
	})
	_, addr := start(t, Options{}, tcpService(echo))
	c := connect(t, addr)
	if _, err := io.WriteString(c, "hello"); err != nil {
		t.Fatal(err)
	}
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(c); err != nil || string(b) != "you said hello" {
		t.Errorf("%q, %v", b, err)
	}
}

func TestReset(t *testing.T) {
	end := make(chan error, 1)
	server := backend(t, func(c *net.TCPConn) {
		_, err := c.Read(make([]byte, 1))
		end <- err
	})
	r, addr := start(t, Options{}, tcpService(server))
	c := connect(t, addr)
	eventually(t, "session", func() bool { return len(r.Connections()) == 1 })
	reset(c)
	if err := <-end; !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("server saw %v, want the client's reset", err)
	}
	eventually(t, "session ends", func() bool { s := r.Stats(); return s.Active == 0 && s.Files == 0 })
}

// TestBulk sends random bytes both ways at once, in bursts and pauses, so that buffers and pipes take turns.
func TestBulk(t *testing.T) {
	t.Run("pipes", func(t *testing.T) { testBulk(t, false) })
	t.Run("buffers", func(t *testing.T) { testBulk(t, true) }) // the kernel has only small pipes
}

func testBulk(t *testing.T, small bool) {
	const size = 24 << 20
	send := func(c *net.TCPConn, seed byte) [32]byte {
		h := sha256.New()
		src := rand.NewChaCha8([32]byte{seed})
		for left := size; left > 0; {
			n := min(left, 1+int(src.Uint64()%(1<<20)))
			b := make([]byte, n)
			_, _ = src.Read(b)
			h.Write(b)
			if _, err := c.Write(b); err != nil {
				t.Error(err)
				return [32]byte{}
			}
			if left -= n; n < 1<<15 {
				time.Sleep(bulkIdle + 10*time.Millisecond)
			}
		}
		_ = c.CloseWrite()
		return [32]byte(h.Sum(nil))
	}
	receive := func(c *net.TCPConn) [32]byte {
		h := sha256.New()
		if n, err := io.Copy(h, c); err != nil || n != size {
			t.Errorf("received %d bytes, %v", n, err)
		}
		return [32]byte(h.Sum(nil))
	}
	var sums [4][32]byte
	var all sync.WaitGroup
	all.Add(2)
	server := backend(t, func(c *net.TCPConn) {
		go func() { defer all.Done(); sums[0] = send(c, 1) }()
		sums[1] = receive(c)
		all.Done()
		all.Wait()
	})
	r, addr := start(t, Options{}, tcpService(server))
	if small {
		r.pipes.mu.Lock()
		r.pipes.small = time.Now().Add(time.Hour)
		r.pipes.mu.Unlock()
	}
	c := connect(t, addr)
	_ = c.SetDeadline(time.Now().Add(2 * time.Minute))
	all.Go(func() { sums[2] = receive(c) })
	sums[3] = send(c, 2)
	all.Wait()
	if sums[0] != sums[2] || sums[1] != sums[3] {
		t.Error("bytes changed on the way")
	}
	eventually(t, "pipes are given back", func() bool {
		r.pipes.mu.Lock()
		defer r.pipes.mu.Unlock()
		return r.pipes.used == 0 && r.bulks.Load() == 0
	})
}
