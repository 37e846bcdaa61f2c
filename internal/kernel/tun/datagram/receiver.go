package datagram

import (
	"errors"
	"net/netip"

	"golang.org/x/sys/unix"
)

// batch is how many datagrams, or trains of them, are received at once.
const batch = 8

// maxFailed is how often in a row the kernel may refuse to receive before the socket is given up.
const maxFailed = 100

// receiver takes datagrams from the socket and gives the packets in them to the device.
type receiver struct {
	e        *Engine
	sock     *socket
	msgs     [batch]mmsghdr
	names    [batch]sockaddr
	controls [batch][64]byte
	bufs     [batch][]byte
	vectors  [batch]unix.Iovec
	out      []unix.Iovec
	merger   *merger
}

func newReceiver(e *Engine, s *socket) *receiver {
	r := &receiver{e: e, sock: s, out: make([]unix.Iovec, 0, maxParts+1)}
	r.merger = newMerger(false, func(parts [][]byte) { e.write(parts, r.out) })
	for i := range r.bufs {
		r.bufs[i] = make([]byte, 1<<16)
		r.vectors[i] = iovec(r.bufs[i])
	}
	return r
}

// run relays until the socket is closed.
func (r *receiver) run() error {
	for failed := 0; ; {
		n, err := r.read()
		if errors.Is(err, errClosed) {
			return nil
		}
		if err != nil {
			if failed++; failed >= maxFailed {
				r.e.socket.CompareAndSwap(r.sock, nil) // the next Apply opens a new one
				return err
			}
			continue
		}
		failed = 0
		d := r.e.device.Load()
		if d == nil {
			continue
		}
		r.merger.udp = d.USO
		for i := range n {
			r.train(r.names[i].addr(), r.bufs[i][:r.msgs[i].n], groSize(r.controls[i][:r.msgs[i].hdr.Controllen]))
		}
		r.merger.flush()
	}
}

// read waits for datagrams and takes those that are there.
func (r *receiver) read() (n int, err error) {
	for i := range r.msgs {
		h := &r.msgs[i].hdr
		h.Name, h.Namelen = &r.names[i].raw[0], unix.SizeofSockaddrInet6
		h.Iov = &r.vectors[i]
		h.SetIovlen(1)
		h.Control = &r.controls[i][0]
		h.SetControllen(len(r.controls[i]))
	}
	var rerr error
	err = r.sock.conn.Read(func(fd uintptr) bool {
		n, rerr = recvmmsg(fd, r.msgs[:])
		return !errors.Is(rerr, unix.EAGAIN)
	})
	if err != nil {
		return 0, errClosed
	}
	return n, rerr
}

// train takes datagrams of one sender, each of size bytes but the last; 0: it is one.
func (r *receiver) train(from netip.Addr, b []byte, size int) {
	c := &r.e.counters
	c.receivedTrains.Add(1)
	subnets, ok := r.e.table.Load().allowed[from]
	if !ok {
		c.refuse(from, ReasonNoPeer)
		return
	}
	if size <= 0 {
		size = len(b)
	}
	for len(b) > 0 {
		n := min(size, len(b))
		r.packet(from, subnets, b[:n])
		b = b[n:]
	}
}

// packet passes one packet to the device, if the sender may send it.
func (r *receiver) packet(from netip.Addr, subnets []netip.Prefix, b []byte) {
	c := &r.e.counters
	h, packet, ok := parse(b)
	if !ok {
		c.malformed.Add(1)
		return
	}
	if !may(subnets, h.src) {
		c.refuse(from, ReasonSource)
		return
	}
	c.receivedPackets.Add(1)
	r.merger.add(h, packet)
}

// write gives a packet in parts, the first an offload header, to the device.
func (e *Engine) write(parts [][]byte, iov []unix.Iovec) {
	d := e.device.Load()
	if d == nil {
		e.counters.lost.Add(1)
		return
	}
	iov = iov[:0]
	for _, p := range parts {
		iov = append(iov, iovec(p))
	}
	var werr error
	err := d.conn.Write(func(fd uintptr) bool {
		werr = writev(fd, iov)
		return !errors.Is(werr, unix.EAGAIN)
	})
	if err != nil || werr != nil {
		e.counters.lost.Add(1)
	}
}
