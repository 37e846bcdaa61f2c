package network

import (
	"context"
	"errors"

	"weft/internal/kernel/tun/wg"
	"weft/internal/netstate"
	"weft/internal/overlay/wireguard"
)

// pair is a WireGuard device and the one that stands in for it: the ports at which they listen, or are to listen. 0: no such device.
type pair struct{ device, standIn uint16 }

// move is how two devices get the names they are to have.
type move int

const (
	stay    move = iota
	succeed      // the one that stands in takes the other's place
	swap         // the two change names
	yield        // the device stands in from now on
)

// moveOf decides by the ports: a device goes on with its sockets and keys under whatever name the plan has for its port.
func moveOf(have, want pair) move {
	switch {
	case have.standIn != 0 && have.standIn == want.device && have.device != 0 && have.device == want.standIn:
		return swap
	case have.standIn != 0 && have.standIn == want.device:
		return succeed
	case have.device != 0 && have.device == want.standIn:
		return yield
	}
	return stay
}

// settleWireGuard moves a device that stands in and the one it stands in for to the names the plan has for their ports. After an error
// neither of them is left, and the step makes both anew.
func (d *Loop) settleWireGuard(ctx context.Context, want netstate.State, standIn string) error {
	e := d.tunnels.WireGuard()
	device, _ := wireguard.StandsIn(standIn)
	if e == nil {
		return nil
	}
	_, there, err := d.handle.Link(ctx, standIn)
	if _, wanted := want.Get(netstate.ID{Kind: netstate.KindLink, Key: standIn}); err != nil || !there && !wanted {
		return err
	}
	have := pair{e.Port(device), e.Port(standIn)}
	m := moveOf(have, pair{wg.WantedPort(want, device), wg.WantedPort(want, standIn)})
	const between = wireguard.StandIn + "-x"
	switch m {
	case stay:
		return nil
	case succeed:
		err = errors.Join(d.removeWireGuard(ctx, device), d.rename(ctx, standIn, device))
	case yield:
		err = errors.Join(d.removeWireGuard(ctx, standIn), d.rename(ctx, device, standIn))
	case swap:
		err = errors.Join(d.rename(ctx, standIn, between), d.rename(ctx, device, standIn), d.rename(ctx, between, device))
	}
	if err != nil {
		err = errors.Join(err, d.removeWireGuard(ctx, between), d.removeWireGuard(ctx, standIn), d.removeWireGuard(ctx, device))
	}
	return err
}

// rename gives a WireGuard device another name, with all that is on it.
func (d *Loop) rename(ctx context.Context, from, to string) error {
	if err := d.handle.Rename(ctx, from, to); err != nil {
		return err
	}
	d.tunnels.WireGuard().Renamed(from, to)
	return nil
}

// removeWireGuard deletes a WireGuard device of ours, where there is one.
func (d *Loop) removeWireGuard(ctx context.Context, name string) error {
	d.tunnels.WireGuard().LetGo(name)
	l, ok, err := d.handle.Link(ctx, name)
	if err != nil || !ok || !l.Owned() {
		return err
	}
	return d.handle.Apply(ctx, []netstate.Op{{Verb: netstate.Del, Object: l}})
}
