package lease

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"weft/internal/api"
)

// noV4 stands in the key of an IPv6-only lease: flannel's readers want a v4 part in every key.
const noV4 = "0.0.0.0-0"

// Key returns the name of a lease below <prefix>/subnets/: "172.16.48.0-24", dual stack "10.5.1.0-24&fc00::-64", IPv6-only
// "0.0.0.0-0&fc00::-64".
func Key(l api.Lease) string {
	v4 := noV4
	if l.Subnet.IsValid() {
		v4 = keyPart(l.Subnet)
	}
	if !l.SubnetV6.IsValid() {
		return v4
	}
	return v4 + "&" + keyPart(l.SubnetV6)
}

func keyPart(p netip.Prefix) string { return p.Addr().String() + "-" + strconv.Itoa(p.Bits()) }

// ParseKey reads the name of a lease. Only the one spelling that Key writes is taken, else two keys could name one subnet
// and two hosts hold it. flannel ignores a v4 part of /32 and a v6 part of /128, so they are refused too.
func ParseKey(key string) (v4, v6 netip.Prefix, err error) {
	part4, part6, dual := strings.Cut(key, "&")
	if part4 != noV4 || !dual {
		if v4, err = parseKeyPart(part4, false); err != nil {
			return netip.Prefix{}, netip.Prefix{}, fmt.Errorf("lease key %q: %w", key, err)
		}
	}
	if dual {
		if v6, err = parseKeyPart(part6, true); err != nil {
			return netip.Prefix{}, netip.Prefix{}, fmt.Errorf("lease key %q: %w", key, err)
		}
	}
	return v4, v6, nil
}

func parseKeyPart(part string, v6 bool) (netip.Prefix, error) {
	family, example, maxLen := "IPv4", "172.16.48.0-24", 31
	if v6 {
		family, example, maxLen = "IPv6", "fc00::-64", 127
	}
	i := strings.LastIndexByte(part, '-')
	if i < 0 {
		return netip.Prefix{}, fmt.Errorf("subnet %q has no length: write it as %s", part, example)
	}
	addr, err := netip.ParseAddr(part[:i])
	if err != nil || addr.Is6() != v6 || addr.Zone() != "" || addr.Is4In6() {
		return netip.Prefix{}, fmt.Errorf("subnet %q is not an %s network: write it as %s", part, family, example)
	}
	bits, err := strconv.Atoi(part[i+1:])
	if err != nil || bits < 1 || bits > maxLen {
		return netip.Prefix{}, fmt.Errorf("subnet %q has the length %q: write a number from 1 to %d", part, part[i+1:], maxLen)
	}
	p := netip.PrefixFrom(addr, bits)
	if p != p.Masked() {
		return netip.Prefix{}, fmt.Errorf("subnet %q has host bits: write it as %s", part, keyPart(p.Masked()))
	}
	if keyPart(p) != part {
		return netip.Prefix{}, fmt.Errorf("subnet %q is not in its short form: write it as %s", part, keyPart(p))
	}
	return p, nil
}
