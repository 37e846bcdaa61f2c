package agent

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"weft/internal/agent/facts"
	"weft/internal/agent/rundir"
	"weft/internal/agent/ways"
	"weft/internal/api"
	"weft/internal/kernel"
	"weft/internal/lease"
	"weft/internal/overlay"
	"weft/internal/overlay/l2"
)

// self is what the node with the facts tells the others of itself in its lease, without the subnets.
func (a *agent) self(ctx context.Context, f facts.Facts, c lease.Config) (api.Lease, error) {
	l := api.Lease{Node: a.cfg.NodeName, PublicIP: f.Public(false), PublicIPv6: f.Public(true), BackendType: c.Backend.Type}
	if !c.EnableIPv6 {
		l.PublicIPv6 = netip.Addr{} // an IPv4 network's leases say null, as flannel's
	}
	if c.Backend.Type == lease.WireGuard {
		return a.announceKey(l, f.Options)
	}
	if c.Backend.Type != lease.VXLAN && c.Backend.Type != lease.L2 {
		return l, nil
	}
	l.VNI = c.Backend.VNI
	var err error
	if c.Backend.Type == lease.L2 {
		l.VTEPMAC, err = a.vtepMAC(ctx, l2.Device(overlay.Options{VNI: l.VNI}))
		return l, err
	}
	if c.EnableIPv4 {
		if l.VTEPMAC, err = a.vtepMAC(ctx, fmt.Sprintf("flannel.%d", l.VNI)); err != nil {
			return l, err
		}
	}
	if c.EnableIPv6 {
		l.VTEPMACv6, err = a.vtepMAC(ctx, fmt.Sprintf("flannel-v6.%d", l.VNI))
	}
	return l, err
}

// vtepMAC is the Ethernet address of a VTEP device: the device's own where there is one (also flannel's), else the one remembered, else
// a new random one. It is remembered, so that a device that is lost, or whose address somebody changes, gets back the address the other
// nodes know.
func (a *agent) vtepMAC(ctx context.Context, device string) (string, error) {
	if mac, ok := a.macs[device]; ok {
		return mac, nil
	}
	mac, err := a.findMAC(ctx, device)
	if err == nil {
		a.macs[device] = mac
	}
	return mac, err
}

func (a *agent) findMAC(ctx context.Context, device string) (string, error) {
	host, err := kernel.Open("")
	if err != nil {
		return "", err
	}
	defer host.Close()
	file := filepath.Join(a.cfg.StateDir, device+".mac")
	mac := ""
	if link, ok, err := host.Link(ctx, device); err != nil {
		return "", fmt.Errorf("look for %s: %w", device, err)
	} else if ok {
		mac = link.MAC
	}
	old, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("read the MAC of %s: %w", device, err)
	}
	remembered := strings.TrimSpace(string(old))
	if hw, err := net.ParseMAC(remembered); mac == "" && err == nil && len(hw) == 6 {
		mac = hw.String()
		if l, ok := a.elsewhere(func(l api.Lease) bool { return l.VTEPMAC == mac || l.VTEPMACv6 == mac }); ok {
			a.log.Warn("the Ethernet address remembered is in another lease, of a host that this one was copied from or of an earlier address "+
				"of this one: a new one is made", "device", device, "mac", mac, "lease", lease.Key(l))
			mac = ""
		}
	}
	if mac == "" {
		mac = randomMAC()
	}
	if mac != remembered {
		if err := rundir.WriteFile(file, []byte(mac+"\n"), 0o644); err != nil {
			return "", fmt.Errorf("remember the MAC of %s: %w", device, err)
		}
	}
	return mac, nil
}

// randomMAC is a locally administered unicast address.
func randomMAC() string {
	var b [6]byte
	_, _ = rand.Read(b[:]) // never fails
	b[0] = b[0]&0xfe | 0x02
	return net.HardwareAddr(b[:]).String()
}

// otherSelf is the node as its lease describes it for the second backend.
func (a *agent) otherSelf(ctx context.Context, f facts.Facts, c lease.Config) ([]lease.Kind, error) {
	if f.Other == nil {
		return nil, nil
	}
	c.Backend = cmp.Or(c.Next, c.Previous)
	f.Backend, f.Options = f.Other.Backend, f.Other.Options
	l, err := a.self(ctx, f, c)
	if err != nil {
		return nil, err
	}
	k := lease.OwnKind(l)
	k.InForce = false
	if k.Type == lease.VXLAN || k.Type == lease.UDP {
		k.Port = ways.PortOf(f.Backend, f.Options)
	}
	return []lease.Kind{k}, nil
}
