package wg

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/conn"
	wgdevice "golang.zx2c4.com/wireguard/device"
	wgtun "golang.zx2c4.com/wireguard/tun"

	"weft/internal/kernel/tun"
)

// user is a device of user-space WireGuard over a TUN device.
type user struct {
	tun *tunDevice
	dev *wgdevice.Device
}

// newUser opens the TUN device and starts WireGuard on it, without peers and without socket.
func newUser(name string, mtu int, key Key, counters *counters, log *slog.Logger) (*user, error) {
	fd, _, err := tun.OpenFD(name)
	if err != nil {
		return nil, err
	}
	native, _, err := wgtun.CreateUnmonitoredTUNFromFD(fd)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("use TUN device %s: %w", name, err), unix.Close(fd))
	}
	t := &tunDevice{Device: native, events: make(chan wgtun.Event, 4)}
	t.mtu.Store(int64(mtu))
	logger := &wgdevice.Logger{
		Verbosef: func(format string, args ...any) {
			counters.notice(format, args)
			if log.Enabled(context.Background(), slog.LevelDebug) {
				log.Debug(fmt.Sprintf(format, args...), "device", name)
			}
		},
		Errorf: func(format string, args ...any) { log.Warn(fmt.Sprintf(format, args...), "device", name) },
	}
	u := &user{tun: t, dev: wgdevice.NewDevice(t, conn.NewDefaultBind(), logger)}
	if err := u.dev.IpcSet("private_key=" + hexKey(key) + "\n"); err != nil {
		u.dev.Close()
		return nil, fmt.Errorf("set private key of %s: %w", name, err)
	}
	return u, nil
}

// tunDevice is the TUN device as WireGuard uses it. Its MTU is told, not asked for: WireGuard's workers may run in another network namespace.
type tunDevice struct {
	wgtun.Device
	mtu    atomic.Int64
	events chan wgtun.Event
	closed atomic.Bool
}

// MTU returns the MTU in bytes.
func (t *tunDevice) MTU() (int, error) { return int(t.mtu.Load()), nil }

// Events returns the channel of changes.
func (t *tunDevice) Events() <-chan wgtun.Event { return t.events }

// Close closes the device once.
func (t *tunDevice) Close() error {
	if t.closed.Swap(true) {
		return nil
	}
	close(t.events)
	return t.Device.Close()
}

// setMTU tells WireGuard a new MTU.
func (u *user) setMTU(mtu int) {
	if u.tun.mtu.Swap(int64(mtu)) == int64(mtu) || u.tun.closed.Load() {
		return
	}
	select {
	case u.tun.events <- wgtun.EventMTUUpdate:
	default: // it will look once for several
	}
}

// alive reports whether the device is still there and served.
func (u *user) alive() bool {
	select {
	case <-u.dev.Wait():
		return false
	default:
	}
	conn, err := u.tun.File().SyscallConn()
	if err != nil {
		return false
	}
	ok := false
	err = conn.Control(func(fd uintptr) { ok = tun.Alive(fd) })
	return err == nil && ok
}

// configure applies a change.
func (u *user) configure(c change, psk Key) error {
	if err := u.dev.IpcSet(c.text(psk)); err != nil {
		return fmt.Errorf("configure user-space WireGuard: %w", err)
	}
	if err := u.dev.Up(); err != nil {
		return fmt.Errorf("start user-space WireGuard: %w", err)
	}
	return nil
}

// text is the change in the configuration protocol.
func (c change) text(psk Key) string {
	var b strings.Builder
	if c.port != 0 {
		fmt.Fprintf(&b, "listen_port=%d\n", c.port)
	}
	for _, k := range c.del {
		fmt.Fprintf(&b, "public_key=%s\nremove=true\n", hexKey(k))
	}
	for _, p := range c.set {
		fmt.Fprintf(&b, "public_key=%s\npreshared_key=%s\nendpoint=%s\npersistent_keepalive_interval=%d\n",
			hexKey(p.key), hexKey(psk), p.endpoint, p.keepalive)
		if p.kept {
			continue
		}
		b.WriteString("replace_allowed_ips=true\n")
		for _, a := range p.allowed {
			fmt.Fprintf(&b, "allowed_ip=%s\n", a)
		}
	}
	return b.String()
}

func (u *user) close() { u.dev.Close() }
