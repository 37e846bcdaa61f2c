package lease

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// SubnetEnv is the content of subnet.env (default /run/flannel/subnet.env), which flannel's CNI plugin and Docker's
// start scripts read, and which remembers the subnet for the next start.
type SubnetEnv struct {
	Network, IPv6Network netip.Prefix // zero when the family is off
	Subnet, IPv6Subnet   netip.Prefix // as network addresses; the file holds the first usable one
	MTU                  int          // bytes, 0 when the file does not say
	IPMasq               bool
}

// Render writes the file. Lines of a family that is off are left out.
func (e SubnetEnv) Render() string {
	var b strings.Builder
	pair := func(network, subnet string, n, s netip.Prefix) {
		if n.IsValid() {
			fmt.Fprintf(&b, "%s=%s\n", network, n.Masked())
		}
		if s.IsValid() {
			first := s.Masked().Addr().Next()
			fmt.Fprintf(&b, "%s=%s\n", subnet, netip.PrefixFrom(first, s.Bits()))
		}
	}
	pair("FLANNEL_NETWORK", "FLANNEL_SUBNET", e.Network, e.Subnet)
	pair("FLANNEL_IPV6_NETWORK", "FLANNEL_IPV6_SUBNET", e.IPv6Network, e.IPv6Subnet)
	if e.MTU > 0 {
		fmt.Fprintf(&b, "FLANNEL_MTU=%d\n", e.MTU)
	}
	fmt.Fprintf(&b, "FLANNEL_IPMASQ=%t\n", e.IPMasq)
	return b.String()
}

// ParseSubnetEnv reads the file as a shell would: NAME=value lines, quotes around a value allowed, # begins a comment line,
// other names are skipped, the last of two equal names counts. Errors name the line and what it should hold.
func ParseSubnetEnv(data []byte) (SubnetEnv, error) {
	var e SubnetEnv
	for i, line := range strings.Split(string(data), "\n") {
		line = strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(line), "export "))
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		name, text, ok := strings.Cut(line, "=")
		if !ok {
			return SubnetEnv{}, fmt.Errorf("subnet.env line %d: %s has no \"=\": write NAME=value", i+1, excerpt(line))
		}
		if err := e.set(name, unquote(strings.TrimSpace(text))); err != nil {
			return SubnetEnv{}, fmt.Errorf("subnet.env line %d: %s: %w", i+1, name, err)
		}
	}
	return e, nil
}

func unquote(s string) string {
	if len(s) >= 2 && (s[0] == '"' || s[0] == '\'') && s[len(s)-1] == s[0] {
		return s[1 : len(s)-1]
	}
	return s
}

func (e *SubnetEnv) set(name, text string) (err error) {
	switch name {
	case "FLANNEL_NETWORK":
		e.Network, err = envPrefix(text, false)
	case "FLANNEL_SUBNET":
		e.Subnet, err = envPrefix(text, false)
	case "FLANNEL_IPV6_NETWORK":
		e.IPv6Network, err = envPrefix(text, true)
	case "FLANNEL_IPV6_SUBNET":
		e.IPv6Subnet, err = envPrefix(text, true)
	case "FLANNEL_MTU":
		n, bad := strconv.Atoi(text)
		if bad != nil || n < 1 || n > 65535 {
			return fmt.Errorf("%q is not an MTU: write a number from 1 to 65535", text)
		}
		e.MTU = n
	case "FLANNEL_IPMASQ":
		if text != "true" && text != "false" {
			return fmt.Errorf("%q is not a yes or no: write true or false", text)
		}
		e.IPMasq = text == "true"
	}
	return err
}

func envPrefix(text string, v6 bool) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(text)
	if err != nil || p.Addr().Is6() != v6 || p.Addr().Is4In6() || p.IsSingleIP() || p.Bits() == 0 {
		example := "an IPv4 network: write it as 10.244.16.1/24"
		if v6 {
			example = "an IPv6 network: write it as fd00:10:244:10::1/64"
		}
		return netip.Prefix{}, fmt.Errorf("%q is not %s", text, example)
	}
	return p.Masked(), nil
}
