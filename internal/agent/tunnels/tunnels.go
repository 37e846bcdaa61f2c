// Package tunnels runs the engines that carry packets of backends udp and wireguard where the kernel does not.
//
// Floor 4, programs.
package tunnels

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"slices"

	"weft/internal/api"
	"weft/internal/kernel/tun/datagram"
	"weft/internal/kernel/tun/wg"
	"weft/internal/netstate"
	"weft/internal/overlay"
	"weft/internal/overlay/udp"
	"weft/internal/overlay/wireguard"
)

// flannelKey is where flannel keeps the host's WireGuard key: a host that changes over stays the same one for the others.
const flannelKey = "/run/flannel/wgkey"

// Engines are the engines that carry packets where the kernel does not: they apply the Tunnels of the plan. The zero value has none.
type Engines struct {
	log     *slog.Logger
	keyFile string
	udp     *datagram.Engine
	wg      *wg.Engine
}

// New returns tunnels that make their engines when a plan first needs them.
func New(log *slog.Logger, stateDir string) *Engines {
	return &Engines{log: log, keyFile: keyFile(stateDir)}
}

func keyFile(stateDir string) string { return filepath.Join(stateDir, "wireguard.key") }

// Prepare opens the TUN devices of the plan and makes them ready to carry packets, so that routes can be pointed at them.
func (t *Engines) Prepare(want netstate.State, psk string) error {
	if t == nil {
		return nil
	}
	var errs []error
	if t.udp == nil && has(want, udp.Device) {
		t.udp = datagram.New(datagram.Options{Device: udp.Device, Log: t.log})
	}
	if t.udp != nil && has(want, udp.Device) {
		errs = append(errs, t.udp.Prepare(want), t.udp.Apply(want))
	}
	encrypted := slices.ContainsFunc(wireguard.Devices(), func(dev string) bool { return has(want, dev) })
	if t.wg == nil && encrypted {
		key, err := wg.LoadKey(t.keyFile, flannelKey)
		if err != nil {
			return err
		}
		t.wg = wg.New(wg.Options{Devices: wireguard.Devices(), Key: key, Log: t.log})
	}
	if t.wg != nil && encrypted {
		errs = append(errs, t.setPSK(psk), t.wg.Prepare(want))
		if !kernelDriver(want) { // else its links are still to be made
			errs = append(errs, t.wg.Apply(want))
		}
	}
	return errors.Join(errs...)
}

func (t *Engines) setPSK(text string) error {
	var psk wg.Key
	if text != "" {
		var err error
		if psk, err = wg.ParseKey(text); err != nil {
			return err
		}
	}
	t.wg.SetPSK(psk)
	return nil
}

// Unmet is how many hosts there was no WireGuard handshake with yet by the devices that are prepared: all, or those that stand in for
// others while the port changes.
func (t *Engines) Unmet(want netstate.State, standIns bool) (int, error) {
	if t == nil || t.wg == nil {
		return 0, nil
	}
	devices := wireguard.Devices()
	if standIns {
		devices = []string{wireguard.StandIn, wireguard.StandInV6}
	}
	return t.wg.Unmet(want, devices)
}

// WireGuard is the engine of backend wireguard, nil as long as there is none.
func (t *Engines) WireGuard() *wg.Engine {
	if t == nil {
		return nil
	}
	return t.wg
}

// Apply finishes after the kernel's objects are as planned: devices that are no longer wanted are let go, kernel devices get their peers.
func (t *Engines) Apply(want netstate.State) error {
	if t == nil {
		return nil
	}
	var errs []error
	if t.udp != nil {
		errs = append(errs, t.udp.Apply(want))
	}
	if t.wg != nil {
		errs = append(errs, t.wg.Apply(want))
	}
	return errors.Join(errs...)
}

// Close ends the engines. Their devices stay.
func (t *Engines) Close() error {
	var errs []error
	if t.udp != nil {
		errs = append(errs, t.udp.Close())
	}
	if t.wg != nil {
		errs = append(errs, t.wg.Close())
	}
	return errors.Join(errs...)
}

// Stats counts what the engines carried and refused, for status.
type Stats struct {
	UDP       *datagram.Stats `json:"udp,omitempty"`
	WireGuard *wg.Stats       `json:"wireguard,omitempty"`
}

// Stats returns the engines' counters, nil when there is no engine.
func (t *Engines) Stats() *Stats {
	if t == nil || (t.udp == nil && t.wg == nil) {
		return nil
	}
	out := &Stats{}
	if t.udp != nil {
		s := t.udp.Stats()
		out.UDP = &s
	}
	if t.wg != nil {
		s := t.wg.Stats()
		out.WireGuard = &s
	}
	return out
}

// WriteMetrics adds the counters to the metrics; who was refused and why are labels.
func WriteMetrics(w io.Writer, s *Stats) {
	if s == nil {
		return
	}
	counter := func(name, help string, v uint64) {
		fmt.Fprintf(w, "# HELP %s %s\n# TYPE %s counter\n%s %d\n", name, help, name, name, v)
	}
	if u := s.UDP; u != nil {
		counter("weft_udp_sent_packets_total", "packets sent to peers", u.SentPackets)
		counter("weft_udp_received_packets_total", "packets received from peers", u.ReceivedPackets)
		counter("weft_udp_no_peer_packets_total", "packets to a subnet that nobody holds", u.NoPeer)
		counter("weft_udp_expired_packets_total", "packets whose TTL or hop limit ended", u.Expired)
		counter("weft_udp_malformed_packets_total", "what was no IP packet", u.Malformed)
		counter("weft_udp_lost_packets_total", "packets refused by the kernel", u.Lost)
	}
	const name = "weft_tunnel_refused_packets_total"
	fmt.Fprintf(w, "# HELP %s packets refused by the edge check\n# TYPE %s counter\n", name, name)
	if s.UDP != nil {
		for _, r := range s.UDP.Refused {
			from := ""
			if r.From.IsValid() {
				from = r.From.String()
			}
			fmt.Fprintf(w, "%s{backend=\"udp\",from=%q,reason=%q} %d\n", name, from, r.Reason, r.Packets)
		}
	}
	if s.WireGuard != nil {
		for _, r := range s.WireGuard.Refused {
			fmt.Fprintf(w, "%s{backend=\"wireguard\",from=%q,reason=%q} %d\n", name, r.From, r.Reason, r.Packets)
		}
	}
}

func has(want netstate.State, device string) bool {
	_, ok := want.Get(netstate.ID{Kind: netstate.KindLink, Key: device})
	return ok
}

func kernelDriver(want netstate.State) bool {
	for _, dev := range wireguard.Devices() {
		o, _ := want.Get(netstate.ID{Kind: netstate.KindLink, Key: dev})
		if l, ok := o.(netstate.Link); ok && l.Type == netstate.TypeWireGuard {
			return true
		}
	}
	return false
}

// AnnounceKey adds the node's public key and ports to what it tells the others.
func AnnounceKey(l api.Lease, o overlay.Options, stateDir string) (api.Lease, error) {
	key, err := wg.LoadKey(keyFile(stateDir), flannelKey)
	if err != nil {
		return l, err
	}
	l.WGKey = key.PublicKey().String()
	l.WGPort, l.WGPortV6 = wireguard.Ports(o)
	return l, nil
}
