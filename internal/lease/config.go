package lease

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"weft/internal/api"
)

// Config is the configuration of the whole network: the value of <prefix>/config in etcd, or the file net-conf.json.
// It is comparable.
type Config struct {
	EnableIPv4     bool // default true
	EnableIPv6     bool
	EnableNFTables bool  // flannel's choice of packet filter; weft always uses nftables for its own rules
	V4, V6         Range // the zero Range when the family is off
	Backend        Backend

	// Of a change of the backend that is under way; Type "" none.
	Next     Backend // hosts get ready to receive by it, and send by Backend
	Previous Backend // hosts go on receiving by it, and send by Backend
	Change   string  // names the change: what a host says of an earlier one does not count
}

// Range is the part of the address space that is handed out in one family.
type Range struct {
	Network   netip.Prefix
	SubnetLen int        // prefix length of every host's subnet, in bits
	Min, Max  netip.Addr // network addresses of the first and the last subnet that may be leased
}

// Range returns the range of one family.
func (c Config) Range(v6 bool) Range {
	if v6 {
		return c.V6
	}
	return c.V4
}

// family holds what differs between IPv4 and IPv6 in the configuration.
type family struct {
	v6                           bool
	prefix                       string // of the field names
	defaultLen, maxLen, smallest int    // in bits; smallest is the longest useful Network
	example                      string
}

var (
	family4 = family{defaultLen: 24, maxLen: 30, smallest: 28, example: "10.244.0.0/16"}
	family6 = family{v6: true, prefix: "IPv6", defaultLen: 64, maxLen: 126, smallest: 124, example: "fd00:10:244::/48"}
)

// ParseConfig reads the network configuration and checks it as flannel does for etcd, and more. Names are matched without
// regard to case. The warnings are what is harmless but probably not meant: unknown fields, options of another backend, a
// Network with host bits, no Backend.
//
// No Backend means "udp": flannel's documentation says vxlan, but its code says udp, and hosts of one network can only
// talk when they all read the same configuration the same way. A warning says so.
func ParseConfig(data []byte) (Config, []string, error) {
	o, err := readObject("", data)
	if err != nil {
		return Config{}, nil, fmt.Errorf("network config: %w", err)
	}
	c := Config{EnableIPv4: true}
	var warnings []string
	warn := func(format string, args ...any) { warnings = append(warnings, fmt.Sprintf(format, args...)) }
	o.bool("EnableIPv4", &c.EnableIPv4)
	o.bool("EnableIPv6", &c.EnableIPv6)
	o.bool("EnableNFTables", &c.EnableNFTables)
	r4 := readRange(o, family4, c.EnableIPv4, warn)
	r6 := readRange(o, family6, c.EnableIPv6, warn)
	if raw, ok := o.take("Backend"); ok {
		c.Backend, err = readBackend(raw, warn)
		if err != nil && o.err == nil {
			o.err = err
		}
	} else {
		c.Backend = defaultBackend(UDP)
		warn(`Backend: missing, which means type "udp": write "Backend": {"Type": "vxlan"} unless you mean that`)
	}
	readChange(o, &c, warn)
	if o.err == nil && !c.EnableIPv4 && !c.EnableIPv6 {
		o.err = errors.New("EnableIPv4: false, and EnableIPv6 is not true: a network needs one of them")
	}
	if o.err == nil {
		c.V4, o.err = completeRange(r4, family4, c.EnableIPv4)
	}
	if o.err == nil {
		c.V6, o.err = completeRange(r6, family6, c.EnableIPv6)
	}
	if o.err != nil {
		return Config{}, nil, fmt.Errorf("network config: %w", o.err)
	}
	for _, name := range o.unused() {
		warn("%s: not a field of the network config, ignored", name)
	}
	return c, warnings, nil
}

// readRange takes the fields of one family, without judging them together.
func readRange(o *object, f family, on bool, warn func(string, ...any)) Range {
	var r Range
	o.prefix(f.prefix+"Network", f.v6, &r.Network)
	integer(o, f.prefix+"SubnetLen", 0, int64(f.maxLen), &r.SubnetLen)
	o.addr(f.prefix+"SubnetMin", f.v6, &r.Min)
	o.addr(f.prefix+"SubnetMax", f.v6, &r.Max)
	if r.Network != r.Network.Masked() {
		warn("%sNetwork: %s has host bits, read as %s", f.prefix, r.Network, r.Network.Masked())
		r.Network = r.Network.Masked()
	}
	if !on && r != (Range{}) {
		warn("%sNetwork: IPv%d is not enabled, so this and the IPv%d subnets are ignored", f.prefix, f.version(), f.version())
	}
	return r
}

func (f family) version() int {
	if f.v6 {
		return 6
	}
	return 4
}

// completeRange fills in the defaults and checks that the fields fit each other. All values in errors are as they count.
func completeRange(r Range, f family, on bool) (Range, error) {
	if !on {
		return Range{}, nil
	}
	if !r.Network.IsValid() {
		return Range{}, fmt.Errorf("%sNetwork: missing: write a network such as %q", f.prefix, f.example)
	}
	bits := r.Network.Bits()
	if bits > f.smallest {
		return Range{}, fmt.Errorf("%sNetwork: %s is too small to be split: write /%d or larger", f.prefix, r.Network, f.smallest)
	}
	if bits == 0 {
		return Range{}, fmt.Errorf("%sNetwork: %s is the whole address space: write a part of it such as %q", f.prefix, r.Network, f.example)
	}
	if r.SubnetLen == 0 {
		r.SubnetLen = max(f.defaultLen, bits+2)
	}
	if r.SubnetLen < bits+2 {
		return Range{}, fmt.Errorf("%sSubnetLen: %d leaves fewer than four subnets in %s: write a number from %d to %d",
			f.prefix, r.SubnetLen, r.Network, bits+2, f.maxLen)
	}
	first := netip.PrefixFrom(r.Network.Addr(), r.SubnetLen)
	if second, ok := Next(first); ok && !r.Min.IsValid() {
		// The first subnet is left out: its .0 would be the address of the network itself.
		r.Min = second.Addr()
	}
	if !r.Max.IsValid() {
		r.Max = netip.PrefixFrom(last(r.Network), r.SubnetLen).Masked().Addr()
	}
	for _, bound := range []struct {
		name string
		addr netip.Addr
	}{{"SubnetMin", r.Min}, {"SubnetMax", r.Max}} {
		if err := checkBound(bound.addr, r); err != nil {
			return Range{}, fmt.Errorf("%s%s: %w", f.prefix, bound.name, err)
		}
	}
	if r.Max.Less(r.Min) {
		return Range{}, fmt.Errorf("%sSubnetMax: %s is below %sSubnetMin %s: exchange them", f.prefix, r.Max, f.prefix, r.Min)
	}
	return r, nil
}

func checkBound(a netip.Addr, r Range) error {
	if !r.Network.Contains(a) {
		return fmt.Errorf("%s is outside the network %s: write an address inside it", a, r.Network)
	}
	if p := netip.PrefixFrom(a, r.SubnetLen).Masked(); p.Addr() != a {
		return fmt.Errorf("%s is not the start of a /%d subnet: write %s", a, r.SubnetLen, p.Addr())
	}
	return nil
}

// Fits says whether p may be leased to a host: of the network's subnet length and within the bounds. The error says why not.
func (r Range) Fits(p netip.Prefix) error {
	switch {
	case !r.Network.IsValid():
		return fmt.Errorf("subnet %s: the network does not use this address family", p)
	case !p.IsValid() || p != p.Masked():
		return fmt.Errorf("subnet %s: not a network address", p)
	case p.Bits() != r.SubnetLen:
		return fmt.Errorf("subnet %s: the network's subnets are /%d", p, r.SubnetLen)
	case !r.Network.Contains(p.Addr()):
		return fmt.Errorf("subnet %s: outside the network %s", p, r.Network)
	case p.Addr().Less(r.Min), r.Max.Less(p.Addr()):
		return fmt.Errorf("subnet %s: outside the leased part %s to %s", p, r.Min, r.Max)
	}
	return nil
}

// holds says whether p lies in the network, of whatever length: a lease made under an earlier SubnetLen still counts.
func (r Range) holds(p netip.Prefix) bool {
	return r.Network.IsValid() && r.Network.Contains(p.Addr()) && p.Bits() > r.Network.Bits()
}

// Check refuses a lease of another host that this network cannot carry: subnets outside it, or no address to reach the
// host by. Where it holds, routes to the subnets lead only to places the configuration names.
func (c Config) Check(l api.Lease) error {
	for _, f := range []family{family4, family6} {
		p, r := Subnet(l, f.v6), c.Range(f.v6)
		if p.IsValid() && r.Network.IsValid() && !r.holds(p) {
			return fmt.Errorf("subnet %s: outside %sNetwork %s: delete the lease or widen the network", p, f.prefix, r.Network)
		}
	}
	if (c.EnableIPv4 && l.Subnet.IsValid()) || (c.EnableIPv6 && l.SubnetV6.IsValid()) {
		return nil
	}
	return fmt.Errorf("subnet %s: of a family the network does not use: enable it or delete the lease", strings.TrimSpace(
		subnetText(l)))
}

func subnetText(l api.Lease) string {
	switch {
	case l.Subnet.IsValid() && l.SubnetV6.IsValid():
		return l.Subnet.String() + " and " + l.SubnetV6.String()
	case l.SubnetV6.IsValid():
		return l.SubnetV6.String()
	}
	return l.Subnet.String()
}
