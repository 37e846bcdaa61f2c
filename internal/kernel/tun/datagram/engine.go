// Package datagram relays the packets of a TUN device in UDP datagrams, one packet in each, as flannel's udp backend does on the wire. It
// applies netstate.Tunnels as rtnetlink applies routes.
//
// Where the kernel can, what belongs together stays together: a TCP train of up to 64 KiB is read from the device at once, cut into
// segments, sent as one train of datagrams (UDP_SEGMENT), received as one (UDP_GRO) and joined again for the device.
//
// Floor 3, edges.
package datagram

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"syscall"

	"weft/internal/kernel/tun"
	"weft/internal/netstate"
)

// Options of an engine.
type Options struct {
	Device string // name of the TUN device
	Log    *slog.Logger
}

// Engine relays the packets of one TUN device. Its methods may be called concurrently.
type Engine struct {
	opt      Options
	counters counters
	table    atomic.Pointer[table]
	device   atomic.Pointer[device]
	socket   atomic.Pointer[socket]

	mu      sync.Mutex // one change at a time
	running sync.WaitGroup
}

// device is the open TUN device.
type device struct {
	*tun.Device
	conn syscall.RawConn
}

// New returns an engine that does nothing until it is told to.
func New(o Options) *Engine {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	e := &Engine{opt: o}
	e.table.Store(newTable(netstate.State{}, o.Device))
	return e
}

// Prepare opens the device if it is wanted, and makes it where it is not there, so that addresses and routes can be put on it. It must be
// called in the device's network namespace.
func (e *Engine) Prepare(want netstate.State) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.wanted(want) {
		return nil
	}
	old := e.device.Load()
	if old != nil && old.alive() {
		return nil
	}
	d, err := tun.Open(e.opt.Device)
	if err != nil {
		return err
	}
	conn, err := d.File.SyscallConn()
	if err != nil {
		return errors.Join(fmt.Errorf("use TUN device %s: %w", e.opt.Device, err), d.Close())
	}
	dev := &device{Device: d, conn: conn}
	e.device.Store(dev)
	if old != nil {
		_ = old.Close() // deleted by somebody
	}
	s := newSender(e, dev)
	e.running.Go(func() {
		if err := s.run(); err != nil {
			e.opt.Log.Info("TUN device is gone", "device", e.opt.Device, "err", err)
		}
	})
	return nil
}

func (e *Engine) wanted(want netstate.State) bool {
	o, ok := want.Get(netstate.ID{Kind: netstate.KindLink, Key: e.opt.Device})
	l, isLink := o.(netstate.Link)
	return ok && isLink && l.Type == netstate.TypeTUN
}

// alive reports whether the device is still there.
func (d *device) alive() bool {
	ok := false
	err := d.conn.Control(func(fd uintptr) { ok = tun.Alive(fd) })
	return err == nil && ok
}

// Apply relays by the tunnels of the State from now on; without the device in it nothing is relayed any more. The first error leaves what
// was. It must be called in the device's network namespace.
func (e *Engine) Apply(want netstate.State) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.wanted(want) {
		e.stop()
		return nil
	}
	t := newTable(want, e.opt.Device)
	old := e.socket.Load()
	if t.tunnels == 0 || (old != nil && old.local == t.local) {
		e.table.Store(t)
		return nil
	}
	s, err := newSocket(t.local)
	if err != nil {
		return err
	}
	e.table.Store(t)
	e.socket.Store(s)
	if old != nil {
		_ = old.file.Close()
	}
	r := newReceiver(e, s)
	e.running.Go(func() {
		if err := r.run(); err != nil {
			e.opt.Log.Warn("UDP socket was lost", "local", s.local, "err", err)
		}
	})
	return nil
}

// stop closes device and socket.
func (e *Engine) stop() {
	if d := e.device.Swap(nil); d != nil {
		_ = d.Close()
	}
	if s := e.socket.Swap(nil); s != nil {
		_ = s.file.Close()
	}
	e.table.Store(newTable(netstate.State{}, e.opt.Device))
}

// Close ends the relaying. The device stays, for the next program.
func (e *Engine) Close() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.stop()
	e.running.Wait()
	return nil
}

// Stats returns the counters.
func (e *Engine) Stats() Stats { return e.counters.stats() }
