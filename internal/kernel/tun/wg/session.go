package wg

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl"

	"weft/internal/netstate"
)

// again is how long a handshake that this host began may take before it is begun anew. WireGuard itself waits 5 s, and a first message
// that came before the other host knew of us is lost.
const again = 100 * time.Millisecond

// Unmet returns how many peers of the named devices, where they are wanted, there was no handshake with yet, and begins those anew that this
// host is to begin: the ones with a keepalive. Only one of two hosts may begin, or both messages may cross and both be void.
func (e *Engine) Unmet(want netstate.State, devices []string) (int, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	unmet := 0
	var errs []error
	for _, name := range devices {
		l, ok := link(want, name)
		if !ok {
			continue
		}
		var n int
		var err error
		if u := e.user[name]; u != nil {
			n, err = e.unmetUser(u)
		} else if l.Type == netstate.TypeWireGuard {
			n, err = e.unmetKernel(name)
		}
		unmet += n
		errs = append(errs, err)
	}
	return unmet, errors.Join(errs...)
}

func (e *Engine) unmetUser(u *served) (int, error) {
	text, err := u.dev.IpcGet()
	if err != nil {
		return 0, fmt.Errorf("read user-space WireGuard: %w", err)
	}
	met := handshakes(text)
	n := 0
	var c change
	for k, p := range u.has.peers {
		if met[hexKey(k)] {
			continue
		}
		n++
		if p.keepalive > 0 {
			c.del, c.set = append(c.del, k), append(c.set, p)
		}
	}
	if len(c.del) == 0 || time.Since(u.begun) < again {
		return n, nil
	}
	u.begun = time.Now()
	return n, u.configure(c, e.opt.PSK)
}

// handshakes reads, from the configuration protocol, the peers with which a handshake was completed, by hexadecimal key.
func handshakes(text string) map[string]bool {
	met := map[string]bool{}
	key := ""
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		switch {
		case name == "public_key":
			key = value
		case name == "last_handshake_time_sec" && value != "0":
			met[key] = true
		}
	}
	return met
}

func (e *Engine) unmetKernel(name string) (int, error) {
	c, err := wgctrl.New()
	if err != nil {
		return 0, fmt.Errorf("open WireGuard control: %w", err)
	}
	defer c.Close()
	return e.unmetOf(c, name)
}

// unmetOf asks the kernel's device.
func (e *Engine) unmetOf(c control, name string) (int, error) {
	d, err := c.Device(name)
	if err != nil {
		return 0, fmt.Errorf("read WireGuard device %s: %w", name, err)
	}
	have, _, err := read(c, name, e.opt.Key, e.opt.PSK)
	if err != nil {
		return 0, err
	}
	n := 0
	var anew change
	for _, p := range d.Peers {
		if !p.LastHandshakeTime.IsZero() {
			continue
		}
		n++
		if q := have.peers[p.PublicKey]; q.keepalive > 0 {
			anew.del, anew.set = append(anew.del, q.key), append(anew.set, q)
		}
	}
	if len(anew.del) == 0 || time.Since(e.begun) < again {
		return n, nil
	}
	e.begun = time.Now()
	return n, configureKernel(c, name, e.opt.Key, true, anew, e.opt.PSK)
}

// sameAllowed reports whether the peer's allowed addresses stay: taking them away and giving them back would lose what comes in between.
func (c config) sameAllowed(p peer) bool {
	h, ok := c.peers[p.key]
	return ok && slices.Equal(h.allowed, p.allowed)
}
