// Package nft carries nftables values (internal/nft) to the kernel over netlink and reads them back. It touches the table it is
// asked to touch and nothing else, and needs no nft program.
//
// It speaks the protocol itself. A client library would have to report which message of a transaction the kernel refused, keep unknown
// expressions instead of leaving them out, and send a hundred thousand elements without one acknowledgement each.
//
// Floor 3, edges.
package nft

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// native is the byte order of netlink's own headers.
var native = binary.NativeEndian

// Conn is a netlink socket for nf_tables in the network namespace of the thread that opened it. It is safe for concurrent use.
type Conn struct {
	mu   sync.Mutex
	fd   int
	port uint32 // nl_pid: marks the events of our own changes
	seq  uint32
	buf  []byte
	mail *mail // see ask
	twin *Conn // for questions at the same time, see lookUp; nil in a twin

	lookupFrom int              // as the constant; tests have smaller sets
	whole      func(set string) // tells tests of a set that is read as a whole; nil: nobody asks

	writer   atomic.Pointer[string] // see Writer
	watchers watchers
	own      ownGenerations
	commits  uint32 // transactions the kernel took
}

// The socket's buffers: a transaction goes to the kernel in one piece, and every message of it may be answered with an error.
const (
	sendBuffer    = 256 << 20
	receiveBuffer = 16 << 20
)

// Open opens a Conn in the calling thread's network namespace.
func Open() (*Conn, error) {
	c, err := open()
	if err != nil {
		return nil, err
	}
	if c.twin, err = open(); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

func open() (*Conn, error) {
	fd, port, err := dial()
	if err != nil {
		return nil, err
	}
	return &Conn{fd: fd, port: port, buf: make([]byte, 64<<10), lookupFrom: lookupFrom}, nil
}

func dial() (fd int, port uint32, err error) {
	fd, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return -1, 0, fmt.Errorf("open nf_tables socket: %w", err)
	}
	if port, err = setUp(fd); err != nil {
		_ = unix.Close(fd)
		return -1, 0, err
	}
	return fd, port, nil
}

func setUp(fd int) (port uint32, err error) {
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return 0, fmt.Errorf("bind nf_tables socket: %w", err)
	}
	own, err := unix.Getsockname(fd)
	if err != nil {
		return 0, fmt.Errorf("read netlink address: %w", err)
	}
	if a, ok := own.(*unix.SockaddrNetlink); ok {
		port = a.Pid
	}
	// As much as we get: beyond net.core.wmem_max the initial user namespace's CAP_NET_ADMIN is needed. Apply splits what does not fit.
	buffer(fd, unix.SO_SNDBUFFORCE, unix.SO_SNDBUF, sendBuffer)
	buffer(fd, unix.SO_RCVBUFFORCE, unix.SO_RCVBUF, receiveBuffer)
	for _, opt := range []int{unix.NETLINK_CAP_ACK, unix.NETLINK_EXT_ACK} {
		if err := unix.SetsockoptInt(fd, unix.SOL_NETLINK, opt, 1); err != nil {
			return 0, fmt.Errorf("set netlink option %d: %w", opt, err)
		}
	}
	return port, nil
}

func buffer(fd, force, plain, size int) {
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, force, size) != nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, plain, size)
	}
}

// Close closes the socket.
func (c *Conn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fd < 0 {
		return nil
	}
	err := unix.Close(c.fd)
	if c.fd = -1; c.twin != nil {
		err = errors.Join(err, c.twin.Close())
	}
	return err
}

// message is a netlink message received; data is what follows its header.
type message struct {
	typ, flags uint16
	seq, pid   uint32
	data       []byte
}

var errMalformed = errors.New("malformed netlink message")

// split takes a datagram apart.
func split(b []byte, each func(message) error) error {
	for len(b) >= unix.SizeofNlMsghdr {
		n := int(native.Uint32(b))
		if n < unix.SizeofNlMsghdr || n > len(b) {
			return errMalformed
		}
		m := message{native.Uint16(b[4:]), native.Uint16(b[6:]), native.Uint32(b[8:]), native.Uint32(b[12:]), b[unix.SizeofNlMsghdr:n]}
		if err := each(m); err != nil {
			return err
		}
		b = b[min(align(n), len(b)):]
	}
	return nil
}

func (c *Conn) send(b []byte) error {
	for {
		err := unix.Sendto(c.fd, b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// receive reads a datagram of the kernel into the buffer, which the next call overwrites.
func (c *Conn) receive(flags int) ([]byte, error) {
	for {
		n, from, err := unix.Recvfrom(c.fd, c.buf, flags)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if a, ok := from.(*unix.SockaddrNetlink); ok && a.Pid != 0 {
			continue // not from the kernel
		}
		return c.buf[:n], nil
	}
}

// refusal is an error the kernel answers.
type refusal struct {
	errno unix.Errno
	text  string // the kernel's own words, often none
}

func (r *refusal) Error() string {
	if r.text != "" {
		return r.errno.Error() + ": " + r.text
	}
	return r.errno.Error()
}

func (r *refusal) Unwrap() error { return r.errno }

// refused returns the error that an NLMSG_ERROR message carries, nil when it is an acknowledgement.
func refused(m message) *refusal {
	if len(m.data) < 4 {
		return &refusal{errno: unix.EBADMSG}
	}
	code := int32(native.Uint32(m.data))
	if code == 0 {
		return nil
	}
	r := &refusal{errno: unix.Errno(-code)}
	const ackTLVs = 0x200 // NLM_F_ACK_TLVS
	if m.flags&ackTLVs != 0 && len(m.data) >= 4+unix.SizeofNlMsghdr {
		rest := m.data[4+unix.SizeofNlMsghdr:]
		_ = attributes(rest, func(typ uint16, v []byte) error {
			if typ == 1 { // NLMSGERR_ATTR_MSG
				r.text = text(v)
			}
			return nil
		})
	}
	return r
}
