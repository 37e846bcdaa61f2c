package lease

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"weft/internal/api"
)

// The keys of the network configuration that a change of the backend needs. flannel's readers skip them.
const (
	nextKey     = "NextBackend"
	previousKey = "PreviousBackend"
	changeKey   = "Change"
)

// readChange takes the backend that is prepared, or the one that is left, of a change under way.
func readChange(o *object, c *Config, warn func(string, ...any)) {
	for _, x := range []struct {
		name string
		to   *Backend
	}{{nextKey, &c.Next}, {previousKey, &c.Previous}} {
		raw, ok := o.take(x.name)
		if !ok {
			continue
		}
		b, err := readBackend(raw, warn)
		if err != nil {
			o.wrap(x.name, err)
			return
		}
		if !b.Preparable() {
			o.wrap(x.name, fmt.Errorf("Backend.Type: %q can't be prepared: only vxlan, host-gw, wireguard and udp change without a gap", b.Type))
			return
		}
		if err := c.Beside(b); err != nil {
			o.wrap(x.name, err)
			return
		}
		*x.to = b
	}
	if o.string(changeKey, &c.Change) {
		o.wrap(changeKey, checkChange(c.Change))
	}
	if o.err == nil && c.Next.Type != "" && c.Previous.Type != "" {
		o.err = fmt.Errorf("%s and %s: one change at a time: leave one of them out", nextKey, previousKey)
	}
}

// Kind is what of a backend another host must know before it can send by it. Backends of one kind differ only in what each host can
// change by itself.
func (b Backend) Kind() Kind {
	k := Kind{Type: b.Type}
	switch b.Type {
	case VXLAN, L2:
		k.VNI, k.Port = b.VNI, cmp.Or(b.Port, 8472)
	case WireGuard:
		if k.Port, k.PortV6 = b.ListenPort, b.ListenPortV6; b.Mode != "separate" {
			k.PortV6 = k.Port
		}
	}
	return k
}

// Preparable reports whether hosts can get ready for the backend while another one is in force.
func (b Backend) Preparable() bool {
	return slices.Contains([]string{VXLAN, HostGW, UDP, WireGuard}, b.Type)
}

// Beside says why a host can't have the network's backend and the other one at a time: two WireGuard devices can't listen on one port. A
// device that stays as it is, as that of the family whose port does not change, is no obstacle.
func (c Config) Beside(other Backend) error {
	if c.Backend.Type != WireGuard || other.Type != WireGuard || SameKind(c.Backend, other) {
		return nil
	}
	for name, port := range c.devices(c.Backend) {
		for otherName, otherPort := range c.devices(other) {
			if port == otherPort && (name != otherName || c.Backend.Mode != other.Mode) {
				return fmt.Errorf("Backend.ListenPort: %d is the port of another device before the change than after it, and two can't have it "+
					"at a time: choose a port that neither of them has", port)
			}
		}
	}
	return nil
}

// devices are the ports of a wireguard backend's devices, by what of the network they carry.
func (c Config) devices(b Backend) map[string]uint16 {
	if b.Mode != "separate" {
		return map[string]uint16{"": b.ListenPort}
	}
	ports := map[string]uint16{}
	if c.EnableIPv4 {
		ports[""] = b.ListenPort
	}
	if c.EnableIPv6 {
		ports["v6"] = b.ListenPortV6
	}
	return ports
}

// Encrypted reports whether packets between hosts may leave only encrypted under the backend.
func (b Backend) Encrypted() bool { return b.Type == WireGuard }

// Supported refuses backends that weft knows the name of and does not have; the error says what to take instead.
func (b Backend) Supported() error {
	instead := map[string]string{
		IPIP:      "there is no IP-in-IP here: use host-gw where all hosts are on one link, or vxlan with DirectRouting",
		IPSec:     "there is no IKE daemon here: use wireguard, which encrypts too",
		Alloc:     "it only leases subnets and makes no paths: use host-gw, or run flanneld for this network",
		Extension: "weft runs no commands of the network's configuration: use one of vxlan, host-gw, wireguard, udp",
	}
	if why, ok := instead[b.Type]; ok {
		return fmt.Errorf("Backend.Type: %q is not supported: %s", b.Type, why)
	}
	return nil
}

// Supported refuses a configuration no agent would take up.
func (c Config) Supported() error {
	for _, b := range []Backend{c.Backend, c.Next, c.Previous} {
		if err := b.Supported(); err != nil {
			return err
		}
		if least := 1280 + 80; c.EnableIPv6 && b.MTU != 0 && b.MTU < least && b.Type != HostGW {
			return fmt.Errorf("Backend.MTU: %d leaves IPv6 pods less than 1280 bytes (RFC 8200): write at least %d or leave it out", b.MTU, least)
		}
	}
	return nil
}

// Preparing returns the configuration now in force with the backend of another one as the next, under the name of the change.
func Preparing(now, then []byte, change string) ([]byte, error) {
	return transition(now, then, nextKey, change)
}

// Leaving returns the configuration to be in force with the backend of the one before as the previous, under the name of the change.
func Leaving(now, before []byte, change string) ([]byte, error) {
	return transition(now, before, previousKey, change)
}

func transition(base, other []byte, key, change string) ([]byte, error) {
	fields, err := plainFields(base)
	if err != nil {
		return nil, err
	}
	others, err := plainFields(other)
	if err != nil {
		return nil, err
	}
	backend := json.RawMessage(`{"Type":"udp"}`)
	for name, raw := range others {
		if strings.EqualFold(name, "Backend") {
			backend = raw
		}
	}
	fields[key] = backend
	if fields[changeKey], err = json.Marshal(change); err != nil {
		return nil, fmt.Errorf("encode change: %w", err)
	}
	text, err := json.Marshal(fields)
	if err != nil {
		return nil, fmt.Errorf("encode network config: %w", err)
	}
	_, _, err = ParseConfig(text)
	return text, err
}

// plainFields are the fields of a configuration without those of a change.
func plainFields(data []byte) (map[string]json.RawMessage, error) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(data, &fields); err != nil {
		return nil, fmt.Errorf("network config: %w", err)
	}
	if fields == nil {
		return nil, errors.New("network config: null")
	}
	for name := range fields {
		if strings.EqualFold(name, nextKey) || strings.EqualFold(name, previousKey) || strings.EqualFold(name, changeKey) {
			delete(fields, name)
		}
	}
	return fields, nil
}

// SameKind reports whether hosts under the one backend receive what those under the other send.
func SameKind(a, b Backend) bool { return a.Kind() == b.Kind() }

// Receives reports whether the lease's holder says that it can receive by the backend from every other host, for the change.
func Receives(l api.Lease, b Backend, change string) bool {
	for _, k := range Kinds(l) {
		if k.matches(b) && k.Ready == change {
			return true
		}
	}
	return false
}

// Announces reports whether the lease's holder can receive by the backend at all.
func Announces(l api.Lease, b Backend) bool {
	return slices.ContainsFunc(Kinds(l), func(k Kind) bool { return k.matches(b) })
}

// Sends reports whether the lease's holder sends by the backend, in the change's second phase: its lease has the kind in force and names
// the one before for that change.
func Sends(l api.Lease, b Backend, change string) bool {
	kinds := Kinds(l)
	return kinds[0].matches(b) && slices.ContainsFunc(kinds[1:], func(k Kind) bool { return k.Ready == change })
}

// matches compares a kind a host announces with a backend's; a port that is not told is any.
func (k Kind) matches(b Backend) bool {
	want := b.Kind()
	port := k.Port == 0 || k.Port == want.Port
	switch {
	case k.Type != want.Type:
		return false
	case k.Type == VXLAN:
		return k.VNI == want.VNI && port
	case k.Type == WireGuard: // a lease tells the ports of the families it has
		return port && (k.PortV6 == 0 || k.PortV6 == want.PortV6)
	}
	return true
}
