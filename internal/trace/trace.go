// Package trace captures frames as they pass an interface (packet(7)).
//
// Floor 3, edges.
package trace

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// snapLen is how much of a frame is kept, in bytes: all headers, also those inside a tunnel.
const snapLen = 256

// pollEvery is how often a capture that sees nothing looks whether it shall end.
const pollEvery = 100 * time.Millisecond

// Capture calls each with the beginning of every frame that passes the interface, in and out, until each says that it has
// enough, or ctx ends. It needs CAP_NET_RAW in the network namespace it is called in.
func Capture(ctx context.Context, iface string, each func(frame []byte) (more bool)) error {
	dev, err := net.InterfaceByName(iface)
	if err != nil {
		return fmt.Errorf("capture on %s: %w", iface, err)
	}
	proto := htons(unix.ETH_P_ALL)
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(proto))
	if err != nil {
		return fmt.Errorf("open packet socket: %w", os.NewSyscallError("socket", err))
	}
	defer func() { _ = unix.Close(fd) }() // a socket that was only read
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: proto, Ifindex: dev.Index}); err != nil {
		return fmt.Errorf("capture on %s: %w", iface, os.NewSyscallError("bind", err))
	}
	timeout := unix.NsecToTimeval(pollEvery.Nanoseconds())
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout); err != nil {
		return fmt.Errorf("capture on %s: %w", iface, os.NewSyscallError("setsockopt", err))
	}
	buf := make([]byte, snapLen)
	for ctx.Err() == nil {
		n, _, err := unix.Recvfrom(fd, buf, 0)
		switch {
		case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return fmt.Errorf("capture on %s: %w", iface, os.NewSyscallError("recvfrom", err))
		}
		if !each(buf[:n]) {
			return nil
		}
	}
	return ctx.Err()
}

func htons(v uint16) uint16 { return v<<8 | v>>8 }
