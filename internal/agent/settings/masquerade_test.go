package settings

import (
	"fmt"
	"strings"
	"testing"
)

func TestMasqueradeFlags(t *testing.T) {
	for _, c := range []struct {
		flags       Masquerade
		masquerades bool
		want        string // the facts, or what the error begins with
	}{
		{Masquerade{RandomFully: true, MarkBit: 14, ForwardRules: true}, true, "{[] false 16384 false}"},
		{Masquerade{MarkBit: 0}, true, "{[] true 1 true}"},
		{
			Masquerade{NonMasqueradeCIDRs: []string{"10.0.0.0/8", "fd00:1::/32", "10.0.0.0/8"}, MarkBit: 31, ForwardRules: true},
			true,
			"{[10.0.0.0/8 fd00:1::/32] true 2147483648 false}",
		},
		{Masquerade{MarkBit: 32}, true, "--masquerade-mark-bit=32: "},
		{Masquerade{MarkBit: -1}, true, "--masquerade-mark-bit=-1: "},
		{Masquerade{NonMasqueradeCIDRs: []string{"10.0.0.1/8"}}, true, "--non-masquerade-cidr=10.0.0.1/8: want a network"},
		{Masquerade{NonMasqueradeCIDRs: []string{"ten"}}, true, "--non-masquerade-cidr=ten: want a network"},
		{Masquerade{NonMasqueradeCIDRs: []string{"::ffff:10.0.0.0/104"}}, true, "--non-masquerade-cidr=::ffff:10.0.0.0/104: want a network"},
		{Masquerade{NonMasqueradeCIDRs: []string{"0.0.0.0/0"}}, true, "--non-masquerade-cidr=0.0.0.0/0: that is every address"},
		{Masquerade{NonMasqueradeCIDRs: []string{"ff00::/8"}}, true, "--non-masquerade-cidr=ff00::/8: multicast"},
		{Masquerade{NonMasqueradeCIDRs: []string{"10.0.0.0/8"}}, false, "--non-masquerade-cidr=10.0.0.0/8: with --ip-masq=false"},
	} {
		err := c.flags.validate(c.masquerades)
		got := fmt.Sprint(c.flags.facts)
		if err != nil {
			got = err.Error()
		}
		if !strings.HasPrefix(got, c.want) {
			t.Errorf("%+v: %s, want %s", c.flags, got, c.want)
		}
	}
}
