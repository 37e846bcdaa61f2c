// Package lease knows how the hosts of one network write down who holds which subnet: the network configuration
// (net-conf.json), the keys and values of leases in etcd, the file subnet.env and the annotations of a Kubernetes node.
// All of them are flannel's formats, so that one network can hold hosts of both.
//
// Floor 2, planners: pure text in, values out. A format is never repaired silently: what cannot be right is refused with
// the key, the field, the value and the way out.
package lease

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/netip"
	"strings"

	"weft/internal/api"
)

// The backend types whose lease data weft reads and writes.
const (
	VXLAN     = "vxlan"
	HostGW    = "host-gw"
	UDP       = "udp"
	WireGuard = "wireguard"
	IPIP      = "ipip"
	IPSec     = "ipsec"
	Alloc     = "alloc"
	Extension = "extension"
	L2        = "l2" // weft's own: the VXLAN device is a port of the bridge
)

// maxVNI is the largest VXLAN network identifier (RFC 7348: 24 bits).
const maxVNI = 1<<24 - 1

// Subnet returns the lease's subnet of one family, the zero Prefix when it has none.
func Subnet(l api.Lease, v6 bool) netip.Prefix {
	if v6 {
		return l.SubnetV6
	}
	return l.Subnet
}

// last returns the highest address of p.
func last(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().AsSlice()
	for i := range b {
		switch host := (i+1)*8 - p.Bits(); {
		case host >= 8:
			b[i] = 0xff
		case host > 0:
			b[i] |= byte(1<<host - 1)
		}
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// Last returns the highest address of the prefix, the zero Addr for an invalid one.
func Last(p netip.Prefix) netip.Addr {
	if !p.IsValid() {
		return netip.Addr{}
	}
	return last(p)
}

// Next returns the prefix of the same length that follows p; ok is false after the last one of the family.
func Next(p netip.Prefix) (next netip.Prefix, ok bool) {
	a := Last(p).Next()
	if !a.IsValid() {
		return netip.Prefix{}, false
	}
	return netip.PrefixFrom(a, p.Bits()), true
}

// parseMAC reads a unicast Ethernet address and returns it in lower case.
func parseMAC(s string) (string, error) {
	low := strings.ToLower(s)
	raw, err := hex.DecodeString(strings.ReplaceAll(low, ":", ""))
	if err != nil || len(raw) != 6 || len(low) != 17 || !colonsInPlace(low) {
		return "", fmt.Errorf("%q is not an Ethernet address: write six bytes such as aa:bb:cc:00:11:22", s)
	}
	if raw[0]&1 != 0 {
		return "", fmt.Errorf("%q is a group address: a VTEP needs a unicast one, with an even first byte", s)
	}
	if low == "00:00:00:00:00:00" {
		return "", fmt.Errorf("%q is the zero address: a VTEP needs one of its own", s)
	}
	return low, nil
}

func colonsInPlace(s string) bool {
	for i := range len(s) {
		if (s[i] == ':') != (i%3 == 2) {
			return false
		}
	}
	return true
}

// parsePublic reads the address under which a host is reached over one family.
func parsePublic(s string, v6 bool) (netip.Addr, error) {
	a, err := netip.ParseAddr(s)
	family := "IPv4"
	if v6 {
		family = "IPv6"
	}
	switch {
	case err != nil || a.Is6() != v6 || a.Is4In6():
		return netip.Addr{}, fmt.Errorf("%q is not an %s address", s, family)
	case a.Zone() != "":
		return netip.Addr{}, fmt.Errorf("%q has a zone, which means nothing on another host: leave out %%%s", s, a.Zone())
	case a.IsUnspecified(), a.IsMulticast(), a.IsLoopback(), a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return netip.Addr{}, fmt.Errorf("%q cannot be reached from another host: write the host's own unicast address", s)
	}
	return a, nil
}

// checkWGKey refuses what is not a Curve25519 key in base64, as wg(8) prints it.
func checkWGKey(s string) error {
	raw, err := base64.StdEncoding.Strict().DecodeString(s)
	if err != nil || len(raw) != 32 {
		return fmt.Errorf("%q is not a wireguard key: write 32 bytes in base64, as \"wg pubkey\" prints them", s)
	}
	return nil
}
