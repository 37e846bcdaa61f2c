package wire

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Conn is a netlink socket of the route family in the network namespace it was opened in. It is not safe for concurrent use.
type Conn struct {
	file *os.File
	raw  syscall.RawConn
	port uint32 // nl_pid, the socket's own address
	seq  uint32
	buf  []byte // for receiving
	size int    // of buf when it is needed
}

// Message is a message received. Data is what follows struct nlmsghdr.
type Message struct {
	Type, Flags uint16
	Seq, Port   uint32
	Data        []byte
}

// bufferSize is the socket's buffer: acknowledgements of a whole batch, or events of a burst, must fit.
const bufferSize = 8 << 20

// The receive buffer of a connection: the kernel makes dump datagrams as large as 32 KiB, an event tells of one object.
const (
	answerSize = 64 << 10
	eventSize  = 16 << 10
)

// Dial opens a socket in the calling thread's network namespace.
func Dial() (*Conn, error) { return dial(bufferSize, answerSize) }

// Subscribe opens a socket that gets the events of the groups (rtnetlink(7), RTNLGRP_*). The kernel keeps up to queue bytes of events that
// were not received yet, 0 for as many as a burst of thousands of objects makes.
func Subscribe(queue int, groups ...uint32) (*Conn, error) {
	return dial(cmp.Or(queue, bufferSize), eventSize, groups...)
}

func dial(queue, size int, groups ...uint32) (*Conn, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink socket: %w", err)
	}
	port, err := setUp(fd, queue, groups)
	if err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	c := &Conn{file: os.NewFile(uintptr(fd), "netlink"), port: port, size: size}
	if c.raw, err = c.file.SyscallConn(); err != nil {
		return nil, errors.Join(fmt.Errorf("poll netlink socket: %w", err), c.file.Close())
	}
	return c, nil
}

func setUp(fd, queue int, groups []uint32) (port uint32, err error) {
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return 0, fmt.Errorf("bind netlink socket: %w", err)
	}
	own, err := unix.Getsockname(fd)
	if err != nil {
		return 0, fmt.Errorf("read netlink address: %w", err)
	}
	if a, ok := own.(*unix.SockaddrNetlink); ok {
		port = a.Pid
	}
	// Beyond net.core.rmem_max only with the capability in the initial user namespace; else as much as we get.
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, queue) != nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, queue)
	}
	// Strict checking lets the kernel filter dumps (Linux 5.0); the others shorten and explain errors.
	for _, opt := range []int{unix.NETLINK_GET_STRICT_CHK, unix.NETLINK_CAP_ACK, unix.NETLINK_EXT_ACK} {
		if err := unix.SetsockoptInt(fd, unix.SOL_NETLINK, opt, 1); err != nil {
			return 0, fmt.Errorf("set netlink option %d: %w", opt, err)
		}
	}
	for _, g := range groups {
		if err := unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, int(g)); err != nil {
			return 0, fmt.Errorf("join netlink group %d: %w", g, err)
		}
	}
	return port, nil
}

// Close closes the socket; a Receive under way returns os.ErrClosed.
func (c *Conn) Close() error { return c.file.Close() }

// Port is the socket's own address, which the kernel puts into the messages that others get of its changes.
func (c *Conn) Port() uint32 { return c.port }

// Bound ends calls under way when ctx ends, or after the limit. The function returned ends the bound.
func (c *Conn) Bound(ctx context.Context, limit time.Duration) (release func(), err error) {
	if err := c.file.SetDeadline(time.Now().Add(limit)); err != nil {
		return nil, fmt.Errorf("set netlink deadline: %w", err)
	}
	ended := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(ended)
		_ = c.file.SetDeadline(time.Unix(1, 0))
	})
	return func() {
		if !stop() {
			<-ended // or it would hit the next call
		}
		c.buf = nil // there may be one connection for each pod, most of them idle
	}, nil
}

// Receive waits for a datagram and returns its messages, which are good until the next call. ENOBUFS says that messages were lost.
func (c *Conn) Receive() ([]Message, error) {
	n, err := c.recv(c.buffer())
	if err != nil {
		return nil, err
	}
	return split(c.buf[:n])
}

// Drain throws away all that waits to be received. After ENOBUFS it must be called before looking at the tables: until the socket's queue
// is empty once, the kernel drops further events without saying so again.
func (c *Conn) Drain() error {
	var err error
	buf := c.buffer()
	cerr := c.raw.Control(func(fd uintptr) {
		for err == nil || errors.Is(err, unix.EINTR) || errors.Is(err, unix.ENOBUFS) {
			_, _, err = unix.Recvfrom(int(fd), buf, unix.MSG_DONTWAIT)
		}
	})
	if errors.Is(err, unix.EAGAIN) {
		err = nil
	}
	if err := errors.Join(cerr, err); err != nil {
		return fmt.Errorf("drain netlink: %w", err)
	}
	return nil
}

// buffer is what is received into, made when it is needed.
func (c *Conn) buffer() []byte {
	if c.buf == nil {
		c.buf = make([]byte, c.size)
	}
	return c.buf
}

func (c *Conn) recv(buf []byte) (n int, err error) {
	rerr := c.raw.Read(func(fd uintptr) bool {
		for {
			var from unix.Sockaddr
			n, from, err = unix.Recvfrom(int(fd), buf, 0)
			if errors.Is(err, unix.EINTR) {
				continue
			}
			if a, ok := from.(*unix.SockaddrNetlink); err == nil && ok && a.Pid != 0 {
				continue // not from the kernel
			}
			return !errors.Is(err, unix.EAGAIN)
		}
	})
	if err := errors.Join(rerr, err); err != nil {
		return 0, fmt.Errorf("receive netlink: %w", err)
	}
	return n, nil
}

func (c *Conn) send(b []byte) error {
	var err error
	werr := c.raw.Write(func(fd uintptr) bool {
		err = unix.Sendto(int(fd), b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
		return !errors.Is(err, unix.EAGAIN)
	})
	if err := errors.Join(werr, err); err != nil {
		return fmt.Errorf("send netlink: %w", err)
	}
	return nil
}

// ErrMalformed says that a datagram is not a row of netlink messages.
var ErrMalformed = errors.New("malformed netlink message")

func split(b []byte) ([]Message, error) {
	var out []Message
	for len(b) >= unix.SizeofNlMsghdr {
		n := int(order.Uint32(b))
		if n < unix.SizeofNlMsghdr || n > len(b) {
			return out, ErrMalformed
		}
		out = append(out, Message{
			Type: order.Uint16(b[4:]), Flags: order.Uint16(b[6:]), Seq: order.Uint32(b[8:]), Port: order.Uint32(b[12:]),
			Data: b[unix.SizeofNlMsghdr:n:n],
		})
		b = b[min((n+3)&^3, len(b)):]
	}
	return out, nil
}
