package datagram

import (
	"errors"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// Bounds of what the sender holds at once.
const (
	readSize  = offloadLen + 1<<16 // a packet from the device with its header
	reads     = 8                  // packets that are read before they are sent
	messages  = 64                 // trains of datagrams for one sendmmsg
	segments  = 1024               // datagrams
	trainMax  = 64                 // datagrams of a train (UDP_MAX_SEGMENTS of older kernels)
	trainSize = 65000              // bytes of a train
)

// sender takes packets from the device and sends them to the peers.
type sender struct {
	e       *Engine
	dev     *device
	bufs    [reads][]byte
	lens    [reads]int
	headers []byte // of segments, maxHeader each
	used    int

	iov      []unix.Iovec
	starts   []int // of each segment in iov, and the end of the last
	msgs     []message
	hdrs     []mmsghdr
	controls [messages][24]byte
	noTrains bool // the kernel can't send them

	table    *table
	last     netip.Addr // the address looked up last, and what was found
	lastDest *destination
	limit    limiter
}

func newSender(e *Engine, d *device) *sender {
	s := &sender{
		e: e, dev: d, headers: make([]byte, segments*maxHeader), iov: make([]unix.Iovec, 0, 2*segments), starts: make([]int, 0, segments+1),
		msgs: make([]message, 0, messages), hdrs: make([]mmsghdr, messages),
	}
	for i := range s.bufs {
		s.bufs[i] = make([]byte, readSize)
	}
	return s
}

// run relays until the device is closed.
func (s *sender) run() error {
	for {
		n, err := s.read()
		for i := range n {
			s.packet(s.bufs[i][:s.lens[i]])
		}
		s.flush()
		if errors.Is(err, errClosed) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// read waits for packets and takes those that are there.
func (s *sender) read() (n int, err error) {
	var rerr error
	err = s.dev.conn.Read(func(fd uintptr) bool {
		for n < reads {
			k, err := unix.Read(int(fd), s.bufs[n])
			if errors.Is(err, unix.EINTR) {
				continue
			}
			if errors.Is(err, unix.EAGAIN) {
				return n > 0
			}
			if err != nil {
				rerr = err
				return true
			}
			s.lens[n] = k
			n++
		}
		return true
	})
	if err != nil {
		return 0, errClosed
	}
	return n, rerr
}

// packet passes one read from the device on.
func (s *sender) packet(b []byte) {
	c := &s.e.counters
	if len(b) < offloadLen {
		c.malformed.Add(1)
		return
	}
	o := readOffload(b)
	h, packet, ok := parse(b[offloadLen:])
	if !ok {
		c.malformed.Add(1)
		return
	}
	if h.dst.IsMulticast() {
		return // the kernel's own, as router solicitations: it is for the link, which ends here
	}
	to := s.lookup(h.dst)
	if to == nil {
		c.noPeer.Add(1)
		s.tell(h, packet, unreachable)
		return
	}
	if !h.hop(packet) {
		c.expired.Add(1)
		s.tell(h, packet, expired)
		return
	}
	if o.kind != gsoNone {
		if split(h, o, packet, s.room, func(header, payload []byte) { s.add(to, header, payload) }) != nil {
			c.malformed.Add(1)
		}
		return
	}
	h.setLen(packet, len(packet))
	if finish(o, packet) != nil {
		c.malformed.Add(1)
		return
	}
	s.add(to, packet, nil)
}

func (s *sender) lookup(a netip.Addr) *destination {
	if t := s.e.table.Load(); t != s.table {
		s.table, s.last = t, netip.Addr{}
	}
	if a != s.last {
		s.last, s.lastDest = a, s.table.lookup(a)
	}
	return s.lastDest
}

// tell answers the packet's sender through the device.
func (s *sender) tell(h ip, packet []byte, why trouble) {
	from := s.table.v4
	if h.v6 {
		from = s.table.v6
	}
	b := icmpError(h, packet, why, from)
	if b == nil || !s.limit.allow(time.Now()) {
		return
	}
	var none [offloadLen]byte
	s.e.write([][]byte{none[:], b}, make([]unix.Iovec, 0, 2))
}

// room returns memory for a segment's header, good until the next flush.
func (s *sender) room() []byte {
	if len(s.starts) == cap(s.starts)-1 || len(s.msgs) == messages {
		s.flush()
	}
	b := s.headers[s.used : s.used+maxHeader]
	s.used += maxHeader
	return b
}
