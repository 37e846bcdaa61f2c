package settings

import (
	"strings"
	"testing"
)

func TestUnderlayFlags(t *testing.T) {
	good := Underlay{
		Ifaces: []string{"eth0", "2001:db8::31", "fe80:0:0:0:aaaa:bbbb:cccc:dddd"}, Patterns: []string{`^eth\d{1,2}$`, `^172\.17\.`},
		CanReach: "172.17.42.1", PublicIP: "203.0.113.1", PublicIPv6: "2001:db8::1",
	}
	if err := good.parse(); err != nil {
		t.Fatal(err)
	}
	if len(good.choice.Names) != 3 || len(good.choice.Patterns) != 2 || good.choice.CanReach.String() != "172.17.42.1" ||
		good.publicIP.String() != "203.0.113.1" || good.publicV6.String() != "2001:db8::1" {
		t.Errorf("%+v", good)
	}
	for want, c := range map[string]Underlay{
		"--iface=: want an interface's name":                                     {Ifaces: []string{"eth0", ""}},
		"--iface=a-name-that-is-too-long: want an interface's name":              {Ifaces: []string{"a-name-that-is-too-long"}},
		"--iface-regex=eth(: want a regular expression such as ^eth: error":      {Patterns: []string{"eth("}},
		"--iface-regex=: want a regular expression such as ^eth: it is empty":    {Patterns: []string{""}},
		"--iface-can-reach=gateway: want the address of another host":            {CanReach: "gateway"},
		"--iface-can-reach=127.0.0.1: want the address of another host":          {CanReach: "127.0.0.1"},
		"--public-ip=eth0: want an IPv4 address":                                 {PublicIP: "eth0"},
		"--public-ip=2001:db8::1: want an IPv4 address like 172.17.42.31; the ":  {PublicIP: "2001:db8::1"},
		"--public-ip=0.0.0.0: no other node can send to it":                      {PublicIP: "0.0.0.0"},
		"--public-ipv6=172.17.42.31: want an IPv6 address like 2001:db8::31; th": {PublicIPv6: "172.17.42.31"},
		"--public-ipv6=fe80::1%eth0: want an IPv6 address":                       {PublicIPv6: "fe80::1%eth0"},
		"--public-ipv6=::1: no other node can send to it":                        {PublicIPv6: "::1"},
	} {
		if err := c.parse(); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "%!") {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}
