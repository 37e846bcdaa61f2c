package datagram

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// errClosed says that a device or socket was closed by us.
var errClosed = errors.New("closed")

// socketBuffer is what the kernel may hold for the socket in each direction, in bytes.
const socketBuffer = 8 << 20

// socket is the UDP socket of all tunnels.
type socket struct {
	local netip.AddrPort
	file  *os.File
	conn  syscall.RawConn
}

func newSocket(local netip.AddrPort) (*socket, error) {
	family := unix.AF_INET
	if local.Addr().Is6() {
		family = unix.AF_INET6
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open UDP socket: %w", err)
	}
	if err := prepare(fd, local); err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	s := &socket{local: local, file: os.NewFile(uintptr(fd), "udp "+local.String())}
	if s.conn, err = s.file.SyscallConn(); err != nil {
		return nil, errors.Join(fmt.Errorf("use UDP socket: %w", err), s.file.Close())
	}
	return s, nil
}

func prepare(fd int, local netip.AddrPort) error {
	for _, o := range []struct{ force, plain int }{
		{unix.SO_RCVBUFFORCE, unix.SO_RCVBUF},
		{unix.SO_SNDBUFFORCE, unix.SO_SNDBUF},
	} {
		if unix.SetsockoptInt(fd, unix.SOL_SOCKET, o.force, socketBuffer) == nil {
			continue
		}
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, o.plain, socketBuffer); err != nil {
			return fmt.Errorf("set UDP socket's buffer: %w", err)
		}
	}
	// Linux 5.0; without it each datagram comes alone.
	_ = unix.SetsockoptInt(fd, unix.SOL_UDP, unix.UDP_GRO, 1)
	var to unix.Sockaddr
	if a := local.Addr(); a.Is4() {
		to = &unix.SockaddrInet4{Port: int(local.Port()), Addr: a.As4()}
	} else {
		to = &unix.SockaddrInet6{Port: int(local.Port()), Addr: a.As16()}
	}
	if err := unix.Bind(fd, to); err != nil {
		return fmt.Errorf("listen on UDP %s: %w", local, err)
	}
	return nil
}
