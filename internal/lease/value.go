package lease

import (
	"encoding/json"
	"fmt"
	"net/netip"

	"weft/internal/api"
)

// value is a lease value field by field in the order flannel writes them.
type value struct {
	PublicIP      string
	PublicIPv6    *string         // null when there is none, never left out
	BackendType   string          `json:",omitempty"`
	BackendData   json.RawMessage `json:",omitempty"`
	BackendV6Data json.RawMessage `json:",omitempty"`
	Also          json.RawMessage `json:",omitempty"` // weft's own: []Kind
}

type vxlanData struct {
	VNI     uint32
	VtepMAC string
}

type wireguardData struct {
	PublicKey string
	Port      uint16
}

// Marshal writes the value of a lease as flannel does, byte for byte. The subnets are in the key, not in the value.
// A lease that Unmarshal would refuse is refused here too, so nothing that others cannot read gets into the store.
func Marshal(l api.Lease) ([]byte, error) {
	key := Key(l)
	if !l.Subnet.IsValid() && !l.SubnetV6.IsValid() {
		return nil, fmt.Errorf("lease of %s: no subnet: acquire one first", l.PublicIP)
	}
	v := value{PublicIP: "0.0.0.0", BackendType: l.BackendType}
	if l.BackendType == UDP || l.BackendType == Alloc {
		v.BackendType = "" // flannel's udp and alloc leave it out
	}
	if l.PublicIP.IsValid() {
		v.PublicIP = l.PublicIP.String()
	}
	if l.PublicIPv6.IsValid() {
		s := l.PublicIPv6.String()
		v.PublicIPv6 = &s
	}
	var err error
	if v.BackendData, v.BackendV6Data, err = backendData(l); err != nil {
		return nil, fmt.Errorf("lease %s: %w", key, err)
	}
	if l.Also != "" {
		v.Also = json.RawMessage(l.Also)
	}
	data, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encode lease %s: %w", key, err)
	}
	if _, err := Unmarshal(key, data); err != nil {
		return nil, err
	}
	return data, nil
}

// backendData writes what the backend type says to the others: one object for each family the lease has.
func backendData(l api.Lease) (v4, v6 json.RawMessage, err error) {
	var four, six any
	switch l.BackendType {
	case VXLAN, L2:
		four, six = vxlanData{l.VNI, l.VTEPMAC}, vxlanData{l.VNI, l.VTEPMACv6}
		if l.VTEPMACv6 == "" {
			six = nil
		}
		if l.VTEPMAC == "" {
			four = nil
		}
	case WireGuard:
		four, six = wireguardData{l.WGKey, l.WGPort}, wireguardData{l.WGKey, l.WGPortV6}
	default:
		return nil, nil, nil
	}
	if l.Subnet.IsValid() && four != nil {
		if v4, err = json.Marshal(four); err != nil {
			return nil, nil, fmt.Errorf("encode BackendData: %w", err)
		}
	}
	if l.SubnetV6.IsValid() && six != nil {
		if v6, err = json.Marshal(six); err != nil {
			return nil, nil, fmt.Errorf("encode BackendV6Data: %w", err)
		}
	}
	return v4, v6, nil
}

// Unmarshal reads a lease from its key (below <prefix>/subnets/) and value. Expiry and Node stay zero. Every error names
// the key, the field and the value. Whether the subnets lie in the network is Config.Check's question.
func Unmarshal(key string, data []byte) (api.Lease, error) {
	v4, v6, err := ParseKey(key)
	if err != nil {
		return api.Lease{}, err
	}
	if l, ok := canonical(string(data), v4, v6); ok {
		return l, nil
	}
	l, err := readValue(data, v4, v6)
	if err != nil {
		return api.Lease{}, fmt.Errorf("lease %s: %w", key, err)
	}
	return l, nil
}

func readValue(data []byte, v4, v6 netip.Prefix) (api.Lease, error) {
	l := api.Lease{Subnet: v4, SubnetV6: v6}
	o, err := readObject("", data)
	if err != nil {
		return l, err
	}
	o.public("PublicIP", false, &l.PublicIP)
	o.public("PublicIPv6", true, &l.PublicIPv6)
	o.string("BackendType", &l.BackendType)
	if raw, ok := o.take("BackendData"); ok && o.err == nil {
		o.err = readData(raw, "BackendData.", l.BackendType, &l.VNI, &l.VTEPMAC, &l.WGKey, &l.WGPort)
	}
	if raw, ok := o.take("BackendV6Data"); ok && o.err == nil {
		var vni uint32
		var wgKey string
		o.err = readData(raw, "BackendV6Data.", l.BackendType, &vni, &l.VTEPMACv6, &wgKey, &l.WGPortV6)
		if l.VNI == 0 {
			l.VNI = vni
		}
		if l.WGKey == "" {
			l.WGKey = wgKey
		}
	}
	o.kinds("Also", &l.Also)
	if o.err == nil {
		o.err = complete(l)
	}
	return l, o.err
}

// public reads one public address. flannel writes 0.0.0.0 for "none".
func (o *object) public(name string, v6 bool, to *netip.Addr) {
	var s string
	if !o.string(name, &s) || s == "" || (!v6 && s == "0.0.0.0") {
		return
	}
	a, err := parsePublic(s, v6)
	if err != nil {
		o.wrap(name, err)
		return
	}
	*to = a
}

// readData reads BackendData or BackendV6Data of the types weft speaks; of the others it may be anything.
func readData(raw json.RawMessage, path, kind string, vni *uint32, mac, wgKey *string, wgPort *uint16) error {
	if kind != VXLAN && kind != L2 && kind != WireGuard {
		return nil
	}
	o, err := readObject(path, raw)
	if err != nil {
		return err
	}
	if kind == WireGuard {
		integer(o, "Port", 0, 65535, wgPort)
		if o.string("PublicKey", wgKey) {
			o.wrap("PublicKey", checkWGKey(*wgKey))
		}
		return o.err
	}
	integer(o, "VNI", 0, maxVNI, vni)
	if o.string("VtepMAC", mac) && o.err == nil {
		*mac, err = parseMAC(*mac)
		o.wrap("VtepMAC", err)
	}
	return o.err
}

// complete refuses a lease that nobody could send a packet to.
func complete(l api.Lease) error {
	switch {
	case !l.PublicIP.IsValid() && !l.PublicIPv6.IsValid():
		return fmt.Errorf("PublicIP: missing: without it nobody can reach the host")
	case l.BackendType == VXLAN || l.BackendType == L2:
		if l.VTEPMAC == "" && l.VTEPMACv6 == "" {
			return fmt.Errorf("BackendData.VtepMAC: missing: a %s lease needs the address of its VTEP", l.BackendType)
		}
	case l.BackendType == WireGuard:
		if l.WGKey == "" {
			return fmt.Errorf("BackendData.PublicKey: missing: a wireguard lease needs the host's public key")
		}
	}
	return nil
}
