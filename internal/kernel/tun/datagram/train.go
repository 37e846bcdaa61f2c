package datagram

import (
	"errors"

	"golang.org/x/sys/unix"
)

// message is a train of datagrams to one destination: all of one size but the last.
type message struct {
	to         *destination
	from, till int // its segments
	size       int // bytes of each segment but the last
	total      int
	full       bool
}

// add appends a datagram, header and payload, to the last train, or begins one.
func (s *sender) add(to *destination, header, payload []byte) {
	size := len(header) + len(payload)
	var m *message
	if n := len(s.msgs); n > 0 {
		m = &s.msgs[n-1]
	}
	if m == nil || m.to != to || m.full || s.noTrains || size > m.size || m.till-m.from == trainMax || m.total+size > trainSize {
		if len(s.msgs) == messages || len(s.starts) == cap(s.starts)-1 {
			s.flush() // only from packet: room has made space for a segment
		}
		s.msgs = append(s.msgs, message{to: to, from: len(s.starts), till: len(s.starts), size: size})
		m = &s.msgs[len(s.msgs)-1]
	}
	s.starts = append(s.starts, len(s.iov))
	s.iov = append(s.iov, iovec(header))
	if len(payload) > 0 {
		s.iov = append(s.iov, iovec(payload))
	}
	m.till++
	m.total += size
	m.full = size < m.size
}

// end returns where the i-th segment ends in iov.
func (s *sender) end(i int) int {
	if i+1 < len(s.starts) {
		return s.starts[i+1]
	}
	return len(s.iov)
}

// flush sends what was gathered.
func (s *sender) flush() {
	sock := s.e.socket.Load()
	if sock != nil && len(s.msgs) > 0 {
		for i := range s.msgs {
			m := &s.msgs[i]
			s.fill(&s.hdrs[i], m.to, s.starts[m.from], s.end(m.till-1))
			if m.till-m.from > 1 {
				gsoControl(s.controls[i][:], m.size)
				s.hdrs[i].hdr.Control = &s.controls[i][0]
				s.hdrs[i].hdr.SetControllen(unix.CmsgSpace(2))
			}
		}
		s.send(sock)
	}
	s.msgs, s.iov, s.starts, s.used = s.msgs[:0], s.iov[:0], s.starts[:0], 0
}

// fill makes a message of a range of iov.
func (s *sender) fill(h *mmsghdr, to *destination, from, till int) {
	*h = mmsghdr{}
	h.hdr.Name, h.hdr.Namelen = &to.name.raw[0], to.name.len
	h.hdr.Iov = &s.iov[from]
	h.hdr.SetIovlen(till - from)
}

// send gives the messages to the kernel. What it can't send now waits, what it refuses is dropped, as the network may.
func (s *sender) send(sock *socket) {
	for at := 0; at < len(s.msgs); {
		n, err := sendWait(sock, s.hdrs[at:len(s.msgs)])
		for _, m := range s.msgs[at : at+n] {
			s.e.counters.sentTrains.Add(1)
			s.e.counters.sentPackets.Add(uint64(m.till - m.from))
		}
		at += n
		if err == nil {
			continue
		}
		if errors.Is(err, errClosed) || at >= len(s.msgs) {
			return
		}
		s.alone(sock, &s.msgs[at], err)
		at++
	}
}

// alone sends the segments of a train that the kernel refused one by one: the underlay's device or path does not take the train.
func (s *sender) alone(sock *socket, m *message, err error) {
	if m.till-m.from == 1 {
		s.e.counters.lost.Add(1)
		return
	}
	if errors.Is(err, unix.EIO) {
		s.noTrains = true // the device can't compute checksums
	}
	var h [1]mmsghdr
	for i := m.from; i < m.till; i++ {
		s.fill(&h[0], m.to, s.starts[i], s.end(i))
		if _, err := sendWait(sock, h[:]); err != nil {
			s.e.counters.lost.Add(1)
			continue
		}
		s.e.counters.sentTrains.Add(1)
		s.e.counters.sentPackets.Add(1)
	}
}

// sendWait sends at least one message, waiting for room if need be.
func sendWait(sock *socket, msgs []mmsghdr) (n int, err error) {
	var serr error
	err = sock.conn.Write(func(fd uintptr) bool {
		n, serr = sendmmsg(fd, msgs)
		return !errors.Is(serr, unix.EAGAIN)
	})
	if err != nil {
		return 0, errClosed
	}
	return n, serr
}
