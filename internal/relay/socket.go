package relay

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"
)

// datagram is one received datagram; whoever has it gives the buffer back.
type datagram struct {
	buf  *[]byte
	n    int
	from netip.AddrPort
	to   netip.Addr // the local address it was sent to, where the socket tells
}

// receive waits for a datagram. It takes a buffer only when there is one.
func receive(raw syscall.RawConn) (datagram, error) {
	var m datagram
	var failed error
	err := raw.Read(func(fd uintptr) bool {
		m.buf = datagrams.Get().(*[]byte)
		failed = m.receive(int(fd))
		if failed != nil {
			datagrams.Put(m.buf)
			m.buf = nil
		}
		return !errors.Is(failed, unix.EAGAIN)
	})
	if err != nil {
		return datagram{}, err
	}
	return m, failed
}

func (m *datagram) receive(fd int) error {
	var control [128]byte
	for {
		n, cn, _, from, err := unix.Recvmsg(fd, *m.buf, control[:], 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return err
		}
		m.n, m.from, m.to = n, sockaddr(from), localAddress(control[:cn])
		return nil
	}
}

func sockaddr(s unix.Sockaddr) netip.AddrPort {
	switch s := s.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(s.Addr), uint16(s.Port))
	case *unix.SockaddrInet6:
		a := netip.AddrFrom16(s.Addr).Unmap()
		if s.ZoneId != 0 && a.Is6() {
			if i, err := net.InterfaceByIndex(int(s.ZoneId)); err == nil {
				a = a.WithZone(i.Name)
			}
		}
		return netip.AddrPortFrom(a, uint16(s.Port))
	}
	return netip.AddrPort{}
}

// wantLocalAddress makes a socket tell the address each datagram was sent to (ip(7), ipv6(7)), so that answers can come from there:
// a redirected client would not recognize them from another.
func wantLocalAddress(network, _ string, c syscall.RawConn) error {
	var failed error
	err := c.Control(func(fd uintptr) {
		if network == "udp4" {
			failed = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_PKTINFO, 1)
		} else {
			failed = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1)
		}
	})
	return errors.Join(err, failed)
}

// localAddress reads the address a datagram was sent to out of its control messages.
func localAddress(control []byte) netip.Addr {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return netip.Addr{}
	}
	for _, m := range messages {
		switch {
		case m.Header.Level == unix.IPPROTO_IPV6 && m.Header.Type == unix.IPV6_PKTINFO && len(m.Data) >= 16:
			return netip.AddrFrom16([16]byte(m.Data[:16])).Unmap()
		case m.Header.Level == unix.IPPROTO_IP && m.Header.Type == unix.IP_PKTINFO && len(m.Data) >= unix.SizeofInet4Pktinfo:
			return netip.AddrFrom4([4]byte(m.Data[8:12]))
		}
	}
	return netip.Addr{}
}

// sourceControl is the control message that sends a datagram from the address; nil leaves the choice to the kernel.
func sourceControl(a netip.Addr) []byte {
	switch {
	case a.Is4():
		return unix.PktInfo4(&unix.Inet4Pktinfo{Spec_dst: a.As4()})
	case a.Is6():
		return unix.PktInfo6(&unix.Inet6Pktinfo{Addr: a.As16()})
	}
	return nil
}

// soOriginalDst is SO_ORIGINAL_DST of linux/netfilter_ipv4.h, and IP6T_SO_ORIGINAL_DST.
const soOriginalDst = 80

// originalDst is where a redirected connection was going before, as connection tracking remembers; zero when it wasn't redirected.
func originalDst(c *net.TCPConn, v6 bool) netip.AddrPort {
	raw, err := c.SyscallConn()
	if err != nil {
		return netip.AddrPort{}
	}
	var out netip.AddrPort
	_ = raw.Control(func(fd uintptr) { // a closed connection has no original
		if v6 {
			out = original(int(fd), unix.IPPROTO_IPV6)
		} else {
			out = original(int(fd), unix.IPPROTO_IP)
		}
	})
	return out
}

func original(fd, level int) netip.AddrPort {
	// The structure of IPV6_MTU_INFO begins with a sockaddr_in6, which is large enough for either answer.
	info, err := unix.GetsockoptIPv6MTUInfo(fd, level, soOriginalDst)
	if err != nil {
		return netip.AddrPort{}
	}
	var port [2]byte
	binary.NativeEndian.PutUint16(port[:], info.Addr.Port)
	addr := netip.AddrFrom16(info.Addr.Addr)
	if level == unix.IPPROTO_IP {
		var v4 [4]byte // where a sockaddr_in has its address
		binary.NativeEndian.PutUint32(v4[:], info.Addr.Flowinfo)
		addr = netip.AddrFrom4(v4)
	}
	return netip.AddrPortFrom(addr, binary.BigEndian.Uint16(port[:]))
}
