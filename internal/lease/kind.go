package lease

import (
	"encoding/json"
	"fmt"
	"strings"

	"weft/internal/api"
)

// Kind is one way by which a host can receive. A lease has the kind flannel knows and, while the network changes its backend, further
// ones, which flannel's readers skip.
type Kind struct {
	Type      string // VXLAN, HostGW, UDP or WireGuard
	VNI       uint32 `json:",omitzero"` // vxlan only
	Port      uint16 `json:",omitzero"` // UDP port: of wireguard always, of vxlan and udp 0 where it is not told
	PortV6    uint16 `json:",omitzero"` // wireguard only
	VTEPMAC   string `json:"VtepMAC,omitempty"`
	VTEPMACv6 string `json:"VtepMACv6,omitempty"`
	WGKey     string `json:"PublicKey,omitempty"`

	// InForce marks the kind the lease has anyway: it adds what flannel's format does not tell, vxlan's port.
	InForce bool `json:",omitzero"`
	// Ready is the change (Config.Change) for which the host can receive by this kind from every other host; "" not yet.
	Ready string `json:",omitempty"`
}

// maxKinds bounds how many kinds a lease may name.
const maxKinds = 8

// OwnKind is the kind a lease has in flannel's format.
func OwnKind(l api.Lease) Kind {
	k := Kind{Type: l.BackendType, InForce: true}
	switch l.BackendType {
	case "":
		k.Type = UDP
	case VXLAN, L2:
		k.VNI, k.VTEPMAC, k.VTEPMACv6 = l.VNI, l.VTEPMAC, l.VTEPMACv6
	case WireGuard:
		k.WGKey, k.Port, k.PortV6 = l.WGKey, l.WGPort, l.WGPortV6
	}
	return k
}

// Kinds returns all kinds by which a lease's holder receives, the one in force first.
func Kinds(l api.Lease) []Kind {
	own := OwnKind(l)
	if l.Also == "" {
		return []Kind{own}
	}
	var more []Kind
	if json.Unmarshal([]byte(l.Also), &more) != nil {
		return []Kind{own} // never: Unmarshal let nothing else in
	}
	out := make([]Kind, 1, len(more)+1)
	for _, k := range more {
		if !k.InForce {
			out = append(out, k)
			continue
		}
		if own.Port == 0 {
			own.Port = k.Port
		}
		own.Ready = k.Ready
	}
	out[0] = own
	return out
}

// Of returns the lease as its holder would write it if the kind were the one in force. A Kind of a wireguard lease has its ports.
func (k Kind) Of(l api.Lease) api.Lease {
	l.BackendType, l.VNI, l.VTEPMAC, l.VTEPMACv6 = k.Type, k.VNI, k.VTEPMAC, k.VTEPMACv6
	l.WGKey, l.WGPort, l.WGPortV6 = "", 0, 0
	if k.Type == WireGuard {
		l.WGKey, l.WGPort, l.WGPortV6 = k.WGKey, k.Port, k.PortV6
	}
	return l
}

// Announce returns the lease with further kinds; none takes earlier ones away.
func Announce(l api.Lease, kinds ...Kind) api.Lease {
	l.Also = ""
	if len(kinds) > 0 {
		text, err := json.Marshal(kinds)
		if err == nil { // a Kind can always be encoded
			l.Also = string(text)
		}
	}
	return l
}

// readKinds reads the further kinds of a lease into the one spelling there is. Kinds of a later version are left out.
func readKinds(raw json.RawMessage) (string, error) {
	var all []json.RawMessage
	if err := json.Unmarshal(raw, &all); err != nil {
		return "", fmt.Errorf("%s is not a list of kinds", excerpt(raw))
	}
	if len(all) > maxKinds {
		return "", fmt.Errorf("%d kinds: at most %d are taken", len(all), maxKinds)
	}
	var kinds []Kind
	for i, one := range all {
		k, err := readKind(fmt.Sprintf("%d.", i), one)
		if err != nil {
			return "", err
		}
		switch k.Type {
		case VXLAN, HostGW, UDP, WireGuard:
			kinds = append(kinds, k)
		}
	}
	return Announce(api.Lease{}, kinds...).Also, nil
}

func readKind(path string, raw json.RawMessage) (Kind, error) {
	var k Kind
	o, err := readObject(path, raw)
	if err != nil {
		return k, err
	}
	o.string("Type", &k.Type)
	integer(o, "VNI", 0, maxVNI, &k.VNI)
	integer(o, "Port", 0, 65535, &k.Port)
	integer(o, "PortV6", 0, 65535, &k.PortV6)
	o.mac("VtepMAC", &k.VTEPMAC)
	o.mac("VtepMACv6", &k.VTEPMACv6)
	if o.string("PublicKey", &k.WGKey) && k.WGKey != "" {
		o.wrap("PublicKey", checkWGKey(k.WGKey))
	}
	o.bool("InForce", &k.InForce)
	if o.string("Ready", &k.Ready) {
		o.wrap("Ready", checkChange(k.Ready))
	}
	switch {
	case o.err != nil || k.InForce:
	case k.Type == VXLAN && k.VTEPMAC == "" && k.VTEPMACv6 == "":
		o.err = fmt.Errorf("%sVtepMAC: missing: nobody could send by vxlan without it", path)
	case k.Type == WireGuard && k.WGKey == "":
		o.err = fmt.Errorf("%sPublicKey: missing: nobody could send by wireguard without it", path)
	}
	return k, o.err
}

func (o *object) kinds(name string, to *string) {
	raw, ok := o.take(name)
	if !ok || o.err != nil {
		return
	}
	var err error
	*to, err = readKinds(raw)
	o.wrap(name, err)
}

func (o *object) mac(name string, to *string) {
	if !o.string(name, to) || *to == "" || o.err != nil {
		return
	}
	var err error
	*to, err = parseMAC(*to)
	o.wrap(name, err)
}

// checkChange refuses what is no name of a change.
func checkChange(s string) error {
	if len(s) > 32 || strings.Trim(s, "0123456789abcdefghijklmnopqrstuvwxyz-") != "" {
		return fmt.Errorf("%q is not the name of a change: write at most 32 of a-z, 0-9 and -", excerpt(s))
	}
	return nil
}
