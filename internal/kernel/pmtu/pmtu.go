// Package pmtu finds out how large packets to another host may be: the path's MTU, which can be smaller than the interface's. The kernel
// learns of it only from ICMP errors of routers, and where those are filtered nothing large arrives and nobody is told. So it is tried
// (RFC 4821, RFC 8899): ICMP echo requests of a given size that must not be fragmented, which any host answers without a program of ours.
//
// Floor 3, edges.
package pmtu

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"

	"golang.org/x/sys/unix"
)

// ErrSilent says that a host answers no echo request at all: nothing is known of the path.
var ErrSilent = errors.New("no answer to echo requests")

// Floor is the smallest packet looked for in bytes: what IPv6 asks of every link (RFC 8200), and IPv4's in practice.
const Floor = 1280

// Header sizes in bytes.
const (
	headerV4   = 20
	headerV6   = 40
	headerICMP = 8
)

// ICMP types (RFC 792, RFC 4443).
const (
	echoRequestV4, echoReplyV4 = 8, 0
	echoRequestV6, echoReplyV6 = 128, 129
)

// Prober sends echo requests from the network namespace it was opened in. Its methods may be called at the same time.
type Prober struct {
	conns [2]*net.IPConn // IPv4, IPv6; nil where the host lacks the family
	id    uint16
	done  sync.WaitGroup

	mu      sync.Mutex
	seq     uint16
	waiting map[key]chan<- struct{}
}

// key is an echo request under way.
type key struct {
	to  netip.Addr
	seq uint16
}

// Open opens the raw sockets, which needs CAP_NET_RAW.
func Open() (*Prober, error) {
	p := &Prober{id: uint16(rand.Uint32()), waiting: map[key]chan<- struct{}{}}
	var errs [2]error
	for i, f := range []struct {
		network string
		setUp   func(fd int) error
	}{{"ip4:icmp", setUpV4}, {"ip6:ipv6-icmp", setUpV6}} {
		p.conns[i], errs[i] = listen(f.network, f.setUp)
	}
	if p.conns[0] == nil && p.conns[1] == nil {
		return nil, fmt.Errorf("open ICMP sockets: %w", errors.Join(errs[:]...))
	}
	for i, c := range p.conns {
		if c != nil {
			p.done.Go(func() { p.receive(c, i == 1) })
		}
	}
	return p, nil
}

func listen(network string, setUp func(fd int) error) (*net.IPConn, error) {
	c, err := net.ListenIP(network, nil)
	if err != nil {
		return nil, err
	}
	raw, err := c.SyscallConn()
	if err == nil {
		var set error
		err = raw.Control(func(fd uintptr) { set = setUp(int(fd)) })
		err = errors.Join(err, set)
	}
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// setUpV4 makes the kernel send what it is given unfragmented, whatever path MTU it believes in, and pass on echo replies alone.
func setUpV4(fd int) error {
	return errors.Join(
		unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_PROBE),
		unix.SetsockoptInt(fd, unix.SOL_RAW, unix.ICMP_FILTER, ^(1<<echoReplyV4)),
	)
}

func setUpV6(fd int) error {
	var f unix.ICMPv6Filter
	for i := range f.Data {
		f.Data[i] = ^uint32(0)
	}
	f.Data[echoReplyV6>>5] &^= 1 << (echoReplyV6 & 31)
	return errors.Join(
		unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_PROBE),
		unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_DONTFRAG, 1),
		unix.SetsockoptICMPv6Filter(fd, unix.IPPROTO_ICMPV6, unix.ICMPV6_FILTER, &f),
	)
}

// Close ends the Prober; who waits for an answer gets none.
func (p *Prober) Close() error {
	var errs []error
	for _, c := range p.conns {
		if c != nil {
			errs = append(errs, c.Close())
		}
	}
	p.done.Wait()
	return errors.Join(errs...)
}

// receive hands replies to those who wait.
func (p *Prober) receive(c *net.IPConn, v6 bool) {
	buf := make([]byte, 128) // the rest of a long packet is not looked at
	for {
		n, from, err := c.ReadFromIP(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // an ICMP error for a packet of ours, which is reported once
		}
		a, ok := netip.AddrFromSlice(from.IP)
		if ok {
			p.answered(a.Unmap(), v6, buf[:n])
		}
	}
}

func (p *Prober) answered(from netip.Addr, v6 bool, msg []byte) {
	want := byte(echoReplyV4)
	if v6 {
		want = echoReplyV6
	}
	if len(msg) < headerICMP || msg[0] != want || binary.BigEndian.Uint16(msg[4:]) != p.id {
		return
	}
	k := key{from, binary.BigEndian.Uint16(msg[6:])}
	p.mu.Lock()
	defer p.mu.Unlock()
	if ch, ok := p.waiting[k]; ok {
		close(ch)
		delete(p.waiting, k)
	}
}

// send sends an echo request whose IP packet has the size in bytes. The channel is closed when the answer comes.
func (p *Prober) send(to netip.Addr, size int) (<-chan struct{}, key, error) {
	conn, header, typ := p.conns[0], headerV4, byte(echoRequestV4)
	if to.Is6() {
		conn, header, typ = p.conns[1], headerV6, echoRequestV6
	}
	if conn == nil {
		return nil, key{}, fmt.Errorf("send to %s: this host lacks the address family", to)
	}
	ch := make(chan struct{})
	p.mu.Lock()
	p.seq++
	k := key{to, p.seq}
	p.waiting[k] = ch
	p.mu.Unlock()
	msg := make([]byte, max(size-header, headerICMP))
	msg[0] = typ
	binary.BigEndian.PutUint16(msg[4:], p.id)
	binary.BigEndian.PutUint16(msg[6:], k.seq)
	if to.Is4() { // the kernel does it for IPv6
		binary.BigEndian.PutUint16(msg[2:], checksum(msg))
	}
	_, err := conn.WriteToIP(msg, &net.IPAddr{IP: to.AsSlice()})
	return ch, k, err
}

func (p *Prober) forget(k key) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.waiting, k)
}

// checksum is the Internet checksum (RFC 1071).
func checksum(b []byte) uint16 {
	var sum uint32
	for ; len(b) > 1; b = b[2:] {
		sum += uint32(b[0])<<8 | uint32(b[1])
	}
	if len(b) == 1 {
		sum += uint32(b[0]) << 8
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// start sends a packet of the size in bytes. One that this host itself can't send gets no answer.
func (p *Prober) start(to netip.Addr, size int) (<-chan struct{}, key) {
	ch, k, err := p.send(to, size)
	if err != nil {
		return nil, k
	}
	return ch, k
}
