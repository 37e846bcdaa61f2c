package network

import (
	"context"

	"weft/internal/kernel"
	"weft/internal/netstate"
	"weft/internal/overlay"
	"weft/internal/overlay/vxlan"
	"weft/internal/overlay/wireguard"
)

// settle gives devices that stood in for another one while the port changed the name they are to have in the end, with all that is
// on them: the one before goes, and no packet waits. Where the kernel refuses it, the device is made anew by the ordinary step.
func (d *Loop) settle(ctx context.Context, want netstate.State) {
	d.settleVXLAN(ctx, want)
	for _, dev := range []string{wireguard.StandIn, wireguard.StandInV6} {
		if err := d.settleWireGuard(ctx, want, dev); err != nil {
			d.log.Debug("devices of wireguard are made anew", "device", dev, "err", err)
		}
	}
}

func (d *Loop) settleVXLAN(ctx context.Context, want netstate.State) {
	for _, w := range netstate.Of[netstate.Link](want) {
		if w.Type != netstate.TypeVXLAN || vxlan.StandIn(w.Name) {
			continue
		}
		name := vxlan.Device(overlay.Options{VNI: w.VXLAN.VNI, StandIn: true}, w.Name == vxlan.Device(overlay.Options{VNI: w.VXLAN.VNI}, true))
		if _, there := want.Get(netstate.ID{Kind: netstate.KindLink, Key: name}); there {
			continue
		}
		l, ok, err := standsIn(ctx, d.handle, name, w)
		if err == nil && ok {
			err = d.replace(ctx, l, w)
		}
		if err != nil {
			d.log.Debug("a device keeps the name it has for now", "device", name, "err", err)
		}
	}
}

// standsIn reports whether a link is what another one is wanted to be.
func standsIn(ctx context.Context, h *kernel.Netns, name string, want netstate.Link) (netstate.Link, bool, error) {
	l, ok, err := h.Link(ctx, name)
	if err != nil || !ok || !l.Owned() || l.Type != want.Type {
		return l, false, err
	}
	a, b := l.VXLAN, want.VXLAN
	return l, a.VNI == b.VNI && a.Port == b.Port && a.GBP == b.GBP, nil
}

func (d *Loop) replace(ctx context.Context, l, want netstate.Link) error {
	old, ok, err := d.handle.Link(ctx, want.Name)
	if err != nil {
		return err
	}
	if ok {
		if err := d.handle.Apply(ctx, []netstate.Op{{Verb: netstate.Del, Object: old}}); err != nil {
			return err
		}
	}
	return d.handle.Rename(ctx, l.Name, want.Name)
}
