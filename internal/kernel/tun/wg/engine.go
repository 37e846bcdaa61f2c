// Package wg applies netstate.Tunnels with a peer key to WireGuard devices: the kernel's own where it has the driver, else user-space
// WireGuard over TUN devices. Whose packets may come from where is WireGuard's own check: a peer's allowed IPs.
//
// Floor 3, edges.
package wg

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl"

	"weft/internal/netstate"
)

// Options of an engine.
type Options struct {
	Devices []string // names of the devices it serves
	Key     Key      // this host's private key
	PSK     Key      // preshared key of all hosts; zero: none
	Log     *slog.Logger
}

// Engine serves WireGuard devices. Its methods may be called concurrently.
type Engine struct {
	opt      Options
	counters counters

	mu    sync.Mutex
	user  map[string]*served // user-space devices
	begun time.Time          // when the kernel's devices were last told to begin handshakes anew
}

// served is a user-space device with what it was told.
type served struct {
	*user
	has   config
	begun time.Time // when handshakes were last begun anew
}

// New returns an engine that does nothing until it is told to.
func New(o Options) *Engine {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Engine{opt: o, user: map[string]*served{}}
}

// Prepare opens the TUN devices that are wanted, and makes those that are not there, so that addresses and routes can be put on them. It must
// be called in the devices' network namespace.
func (e *Engine) Prepare(want netstate.State) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	var errs []error
	for _, name := range e.opt.Devices {
		l, ok := link(want, name)
		if !ok || l.Type != netstate.TypeTUN {
			continue
		}
		if u, ok := e.user[name]; ok {
			if u.alive() {
				u.setMTU(l.MTU)
				continue
			}
			u.close()
			delete(e.user, name)
		}
		u, err := newUser(name, l.MTU, e.opt.Key, &e.counters, e.opt.Log)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		e.user[name] = &served{user: u}
	}
	return errors.Join(errs...)
}

func link(want netstate.State, name string) (netstate.Link, bool) {
	o, ok := want.Get(netstate.ID{Kind: netstate.KindLink, Key: name})
	l, is := o.(netstate.Link)
	return l, ok && is
}

// Apply tells the devices their peers; a user-space device that is not wanted any more is let go. It must be called in the devices'
// network namespace, after their links were made.
func (e *Engine) Apply(want netstate.State) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	var errs []error
	var all []config
	defer func() { e.counters.name(all) }()
	for name, u := range e.user { // before others are told to listen at its port
		if l, ok := link(want, name); !ok || l.Type != netstate.TypeTUN {
			u.close()
			delete(e.user, name)
		}
	}
	for _, name := range e.opt.Devices {
		l, ok := link(want, name)
		if !ok {
			continue
		}
		c, err := configOf(want, name)
		errs = append(errs, err)
		all = append(all, c)
		if l.Type == netstate.TypeWireGuard {
			errs = append(errs, e.applyKernel(name, c))
			continue
		}
		errs = append(errs, e.applyUser(name, c))
	}
	return errors.Join(errs...)
}

func (e *Engine) applyUser(name string, want config) error {
	u := e.user[name]
	if u == nil {
		return fmt.Errorf("apply tunnels of %s: device is not open", name)
	}
	if want.port == 0 {
		want.port = u.has.port
	}
	c := changeOf(want, u.has)
	if c.empty() {
		return nil
	}
	if err := u.configure(c, e.opt.PSK); err != nil {
		return fmt.Errorf("apply tunnels of %s: %w", name, err)
	}
	u.has = want
	return nil
}

func (e *Engine) applyKernel(name string, want config) error {
	c, err := wgctrl.New()
	if err != nil {
		return fmt.Errorf("open WireGuard control: %w", err)
	}
	defer c.Close()
	return e.applyTo(c, name, want)
}

// applyTo brings the kernel's device to the config, by what it has.
func (e *Engine) applyTo(c control, name string, want config) error {
	have, keyRight, err := read(c, name, e.opt.Key, e.opt.PSK)
	if err != nil {
		return err
	}
	if want.port == 0 {
		want.port = have.port
	}
	ch := changeOf(want, have)
	if ch.empty() && keyRight {
		return nil
	}
	return configureKernel(c, name, e.opt.Key, keyRight, ch, e.opt.PSK)
}

// SetPSK changes the preshared key; peers get it with the next Apply.
func (e *Engine) SetPSK(psk Key) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if psk == e.opt.PSK {
		return
	}
	e.opt.PSK = psk
	for _, u := range e.user {
		for k, p := range u.has.peers {
			p.keepalive = -1 // no longer as it is to be
			u.has.peers[k] = p
		}
	}
}

// Close ends user-space WireGuard. The devices stay, for the next program.
func (e *Engine) Close() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	for name, u := range e.user {
		u.close()
		delete(e.user, name)
	}
	return nil
}

// Stats returns what user-space WireGuard refused.
func (e *Engine) Stats() Stats { return e.counters.stats() }
