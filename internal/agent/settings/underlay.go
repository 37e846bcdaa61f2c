package settings

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"strings"

	"github.com/spf13/pflag"

	"weft/internal/kernel/probe"
)

// Underlay is how the interface that leads to the other nodes is chosen, and what they are told of it.
type Underlay struct {
	Ifaces, Patterns     []string
	CanReach             string
	PublicIP, PublicIPv6 string

	choice             probe.Choice
	publicIP, publicV6 netip.Addr
}

func (c *Underlay) flags(f *pflag.FlagSet) {
	f.StringArrayVar(&c.Ifaces, "iface", nil, "underlay interface, name or address; repeatable, the first that fits is taken; none of these flags: the default route's")
	f.StringArrayVar(&c.Patterns, "iface-regex", nil, "regular expression that the name or an address of the underlay interface matches; repeatable, looked at after --iface")
	f.StringVar(&c.CanReach, "iface-can-reach", "", "the interface by which this address is reached is the underlay; looked at after --iface and --iface-regex")
	f.StringVar(&c.PublicIP, "public-ip", "", "IPv4 address other nodes reach this one by; empty: the underlay interface's")
	f.StringVar(&c.PublicIPv6, "public-ipv6", "", "IPv6 address other nodes reach this one by; empty: the underlay interface's")
}

// parse checks the flags.
func (c *Underlay) parse() error {
	if err := c.parseChoice(); err != nil {
		return err
	}
	var err error
	if c.publicIP, err = publicAddr("--public-ip", c.PublicIP, false); err != nil {
		return err
	}
	c.publicV6, err = publicAddr("--public-ipv6", c.PublicIPv6, true)
	return err
}

func (c *Underlay) parseChoice() error {
	c.choice = probe.Choice{Names: c.Ifaces}
	for _, name := range c.Ifaces {
		if name == "" || strings.ContainsAny(name, "/ ") || len(name) > 15 && !isAddr(name) {
			return fmt.Errorf("--iface=%s: want an interface's name or one of its addresses, for example eth0 or 172.17.42.31", name)
		}
	}
	for _, text := range c.Patterns {
		p, err := regexp.Compile(text)
		if err == nil && text == "" {
			err = errors.New("it is empty, and would match every interface")
		}
		if err != nil {
			return fmt.Errorf("--iface-regex=%s: want a regular expression such as ^eth: %w", text, err)
		}
		c.choice.Patterns = append(c.choice.Patterns, p)
	}
	if c.CanReach != "" {
		ip, err := netip.ParseAddr(c.CanReach)
		if err != nil || ip.Zone() != "" || ip.IsUnspecified() || ip.IsLoopback() {
			return fmt.Errorf("--iface-can-reach=%s: want the address of another host, for example 172.17.42.1", c.CanReach)
		}
		c.choice.CanReach = ip.Unmap()
	}
	return nil
}

func isAddr(text string) bool {
	_, err := netip.ParseAddr(text)
	return err == nil
}

// publicAddr reads an address that others can send to.
func publicAddr(flag, text string, v6 bool) (netip.Addr, error) {
	if text == "" {
		return netip.Addr{}, nil
	}
	ip, err := netip.ParseAddr(text)
	example, other := "an IPv4 address like 172.17.42.31", "--public-ipv6"
	if v6 {
		example, other = "an IPv6 address like 2001:db8::31", "--public-ip"
	}
	switch {
	case err != nil, ip.Zone() != "", ip.Is4In6():
		return netip.Addr{}, fmt.Errorf("%s=%s: want %s", flag, text, example)
	case ip.Is6() != v6:
		return netip.Addr{}, fmt.Errorf("%s=%s: want %s; the other family's flag is %s", flag, text, example, other)
	case ip.IsUnspecified(), ip.IsLoopback(), ip.IsMulticast():
		return netip.Addr{}, fmt.Errorf("%s=%s: no other node can send to it: want %s", flag, text, example)
	}
	return ip, nil
}

// Chosen is how the interface is chosen, once the flags were validated.
func (c *Underlay) Chosen() probe.Choice { return c.choice }

// Public are the addresses, of IPv4 and IPv6, that the flags ask for.
func (c *Underlay) Public() [2]netip.Addr { return [2]netip.Addr{c.publicIP, c.publicV6} }
