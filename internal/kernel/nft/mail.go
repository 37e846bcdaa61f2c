package nft

import (
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// mail receives many datagrams with one system call: the kernel answers a question for a hundred keys with a hundred datagrams.
type mail struct {
	room []byte
	iov  []unix.Iovec
	hdrs []mmsghdr
}

// mmsghdr is struct mmsghdr of recvmmsg(2).
type mmsghdr struct {
	hdr unix.Msghdr
	n   uint32
	_   [4]byte
}

// letter is the room for one datagram: an answer about one element takes about 100 bytes.
const letter = 2048

func newMail(n int) *mail {
	m := &mail{make([]byte, n*letter), make([]unix.Iovec, n), make([]mmsghdr, n)}
	for i := range m.hdrs {
		m.iov[i].Base = &m.room[i*letter]
		m.iov[i].SetLen(letter)
		m.hdrs[i].hdr.Iov = &m.iov[i]
		m.hdrs[i].hdr.SetIovlen(1)
	}
	return m
}

// receive returns how many datagrams came; 0 when there is none. It does not wait.
func (m *mail) receive(fd int) (int, error) {
	for {
		n, _, errno := unix.Syscall6(unix.SYS_RECVMMSG, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(m.hdrs))), uintptr(len(m.hdrs)),
			unix.MSG_DONTWAIT, 0, 0)
		switch errno {
		case 0:
			return int(n), nil
		case unix.EINTR:
		case unix.EAGAIN:
			return 0, nil
		default:
			return 0, errno
		}
	}
}

// letter returns the ith datagram that came.
func (m *mail) letter(i int) []byte { return m.room[i*letter : i*letter+int(m.hdrs[i].n)] }

// ask sends requests, which the kernel answers before the call that sends returns, and calls f with each message of the answers. lost
// reports that the socket's buffer was too small for them.
func (c *Conn) ask(b buf, f func(message) error) (lost bool, err error) {
	if c.mail == nil {
		c.mail = newMail(2 * asked)
	}
	if err := c.send(b); err != nil {
		return false, fmt.Errorf("send: %w", err)
	}
	for {
		n, err := c.mail.receive(c.fd)
		switch {
		case errors.Is(err, unix.ENOBUFS):
			lost = true
			continue
		case err != nil:
			return lost, fmt.Errorf("receive: %w", err)
		case n == 0:
			return lost, nil
		}
		for i := range n {
			if err := split(c.mail.letter(i), f); err != nil {
				return lost, err
			}
		}
	}
}
