// Package tun opens TUN devices (Documentation/networking/tuntap.rst of the kernel). The programs that relay their packets are below:
// datagram for overlay udp, wg for WireGuard without a kernel driver.
//
// A device is made persistent: it stays, with its addresses and routes, while the program that serves it restarts.
//
// Floor 3, edges.
package tun

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

const node = "/dev/net/tun"

// Device is an open queue of a TUN device, in the network namespace of the thread that opened it.
type Device struct {
	Name string
	File *os.File // every packet is preceded by a struct virtio_net_hdr of HeaderLen bytes; non-blocking
	USO  bool     // datagrams too come and go as trains (Linux 6.2)
}

// HeaderLen is the length of the struct virtio_net_hdr before each packet, in bytes.
const HeaderLen = 10

// Open opens the TUN device with the name, and makes it where there is none. It must be called in the device's network namespace.
func Open(name string) (*Device, error) {
	fd, uso, err := OpenFD(name)
	if err != nil {
		return nil, err
	}
	return &Device{Name: name, File: os.NewFile(uintptr(fd), node), USO: uso}, nil
}

// OpenFD is Open for who wants the descriptor alone. uso says that the kernel takes trains of datagrams too.
func OpenFD(name string) (fd int, uso bool, err error) {
	fd, err = unix.Open(node, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return -1, false, fmt.Errorf("open %s: %w", node, err)
	}
	if uso, err = setup(fd, name); err != nil {
		_ = unix.Close(fd)
		return -1, false, err
	}
	return fd, uso, nil
}

func setup(fd int, name string) (uso bool, err error) {
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		return false, fmt.Errorf("device name %q: want 1 to 15 bytes", name)
	}
	ifr.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr); err != nil {
		switch {
		case errors.Is(err, unix.EBUSY):
			return false, fmt.Errorf("open TUN device %s: another program serves it: stop that one: %w", name, err)
		case errors.Is(err, unix.EINVAL):
			return false, fmt.Errorf("open TUN device %s: a device of another kind has the name: delete it: %w", name, err)
		}
		return false, fmt.Errorf("open TUN device %s: %w", name, err)
	}
	if err := unix.IoctlSetInt(fd, unix.TUNSETPERSIST, 1); err != nil {
		return false, fmt.Errorf("keep TUN device %s: %w", name, err)
	}
	if err := unix.IoctlSetPointerInt(fd, unix.TUNSETVNETHDRSZ, HeaderLen); err != nil {
		return false, fmt.Errorf("set header of TUN device %s: %w", name, err)
	}
	const tcp = unix.TUN_F_CSUM | unix.TUN_F_TSO4 | unix.TUN_F_TSO6
	if unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, tcp|unix.TUN_F_USO4|unix.TUN_F_USO6) == nil {
		return true, nil
	}
	if err := unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, tcp); err != nil {
		return false, fmt.Errorf("set offloads of TUN device %s: %w", name, err)
	}
	return false, nil
}

// Alive reports whether the device behind the descriptor is still there.
func Alive(fd uintptr) bool {
	ifr, err := unix.NewIfreq("lo") // the name is answered
	return err == nil && unix.IoctlIfreq(int(fd), unix.TUNGETIFF, ifr) == nil
}

// Close lets go of the device, which stays.
func (d *Device) Close() error { return d.File.Close() }
