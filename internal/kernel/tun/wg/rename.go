package wg

import (
	"golang.zx2c4.com/wireguard/wgctrl"

	"weft/internal/netstate"
)

// Port is the UDP port at which the device listens: that of a user-space one which the engine serves, else of the kernel's with the name; 0
// where there is none, or it was not told yet. It must be called in the devices' network namespace.
func (e *Engine) Port(name string) uint16 {
	e.mu.Lock()
	defer e.mu.Unlock()
	if u := e.user[name]; u != nil {
		return u.has.port
	}
	c, err := wgctrl.New()
	if err != nil {
		return 0 // no driver, and so no device
	}
	defer c.Close()
	return portOf(c, name)
}

func portOf(c control, name string) uint16 {
	d, err := c.Device(name)
	if err != nil {
		return 0
	}
	return uint16(d.ListenPort)
}

// WantedPort is the port at which a device of the wanted state is to listen, 0 where it has no peer.
func WantedPort(want netstate.State, name string) uint16 {
	c, _ := configOf(want, name) // Apply reports what is wrong with it
	return c.port
}

// Renamed says that a device has got another name: it goes on with its keys and its sockets. A device that was served under that name must
// have been let go.
func (e *Engine) Renamed(from, to string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if u := e.user[from]; u != nil {
		e.user[to] = u
		delete(e.user, from)
	}
}

// LetGo ends what serves the device, so that it can be deleted.
func (e *Engine) LetGo(name string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if u := e.user[name]; u != nil {
		u.close()
		delete(e.user, name)
	}
}
