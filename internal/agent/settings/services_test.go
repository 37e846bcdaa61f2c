package settings

import (
	"fmt"
	"strings"
	"testing"
)

func TestServiceFlags(t *testing.T) {
	plain := Services{LocalhostNodePorts: true, NodePortRanges: true}
	with := func(addresses ...string) Services {
		f := plain
		f.NodePortAddresses = addresses
		return f
	}
	for _, c := range []struct {
		flags Services
		want  string // the facts, or what the error begins with
	}{
		{plain, "{[] false false false false false false false {0 0 0s 0s 0s 0s} false}"},
		{Services{MasqueradeAll: true, Liberal: true}, "{[] false true true true true false false {0 0 0s 0s 0s 0s} false}"},
		{with("192.168.0.0/16", "fd00:1::/32", "192.168.0.0/16", "127.0.0.0/8", "0.0.0.0/0"), "{[192.168.0.0/16 fd00:1::/32 127.0.0.0/8 0.0.0.0/0] "},
		{with("primary"), "{[] true "},
		{with("primary", "10.0.0.0/8"), `--nodeport-addresses=[primary 10.0.0.0/8]: "primary" stands alone`},
		{with("10.0.0.1/8"), "--nodeport-addresses=10.0.0.1/8: want a network"},
		{with("::ffff:10.0.0.0/104"), "--nodeport-addresses=::ffff:10.0.0.0/104: want a network"},
		{with("eth0"), "--nodeport-addresses=eth0: want a network"},
		{with("64.0.0.0/2"), "--nodeport-addresses=64.0.0.0/2: holds 127.0.0.0/8 and more"},
		{with("ff00::/8"), "--nodeport-addresses=ff00::/8: multicast"},
	} {
		err := c.flags.validate()
		got := fmt.Sprint(c.flags.facts)
		if err != nil {
			got = err.Error()
		}
		if !strings.HasPrefix(got, c.want) {
			t.Errorf("%+v: %s, want %s", c.flags, got, c.want)
		}
	}
}
