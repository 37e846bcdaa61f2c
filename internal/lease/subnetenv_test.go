package lease

import (
	"net/netip"
	"strings"
	"testing"
)

func TestSubnetEnv(t *testing.T) {
	tests := []struct {
		env  SubnetEnv
		text string
	}{
		{
			SubnetEnv{Network: netip.MustParsePrefix("172.16.0.0/12"), Subnet: v4, MTU: 1450, IPMasq: true},
			"FLANNEL_NETWORK=172.16.0.0/12\nFLANNEL_SUBNET=172.16.28.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n",
		},
		{
			SubnetEnv{
				Network: netip.MustParsePrefix("172.16.0.0/12"), Subnet: v4, MTU: 1430,
				IPv6Network: netip.MustParsePrefix("fd00:5::/48"), IPv6Subnet: v6,
			},
			"FLANNEL_NETWORK=172.16.0.0/12\nFLANNEL_SUBNET=172.16.28.1/24\nFLANNEL_IPV6_NETWORK=fd00:5::/48\n" +
				"FLANNEL_IPV6_SUBNET=fd00:5:0:1::1/64\nFLANNEL_MTU=1430\nFLANNEL_IPMASQ=false\n",
		},
	}
	for _, tt := range tests {
		if got := tt.env.Render(); got != tt.text {
			t.Errorf("got\n%swant\n%s", got, tt.text)
		}
		if got, err := ParseSubnetEnv([]byte(tt.text)); err != nil || got != tt.env {
			t.Errorf("read %+v, %v\nwant %+v", got, err, tt.env)
		}
	}
	got, err := ParseSubnetEnv([]byte("# by hand\n\nexport FLANNEL_SUBNET=\"172.16.28.1/24\"\r\nOTHER=1\nFLANNEL_IPMASQ='true'"))
	if want := (SubnetEnv{Subnet: v4, IPMasq: true}); err != nil || got != want {
		t.Errorf("read %+v, %v, want %+v", got, err, want)
	}
}

func TestSubnetEnvRefuses(t *testing.T) {
	for in, want := range map[string]string{
		"\nFLANNEL_SUBNET":              `line 2: FLANNEL_SUBNET has no "="`,
		"FLANNEL_SUBNET=172.16.28.1":    `line 1: FLANNEL_SUBNET: "172.16.28.1" is not an IPv4 network`,
		"FLANNEL_SUBNET=fd00::1/64":     `FLANNEL_SUBNET: "fd00::1/64" is not an IPv4 network`,
		"FLANNEL_IPV6_SUBNET=1.2.3.4/8": `FLANNEL_IPV6_SUBNET: "1.2.3.4/8" is not an IPv6 network`,
		"FLANNEL_MTU=big":               `FLANNEL_MTU: "big" is not an MTU`,
		"FLANNEL_IPMASQ=yes":            `FLANNEL_IPMASQ: "yes" is not a yes or no: write true or false`,
	} {
		if _, err := ParseSubnetEnv([]byte(in)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q", in, err, want)
		}
	}
}

// FuzzSubnetEnv: what is read and written reads the same again.
func FuzzSubnetEnv(f *testing.F) {
	f.Add([]byte("FLANNEL_NETWORK=172.16.0.0/12\nFLANNEL_SUBNET=172.16.28.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n"))
	f.Add([]byte("FLANNEL_IPV6_NETWORK=fd00:5::/48\nFLANNEL_IPV6_SUBNET=\"fd00:5:0:1::1/64\"\nexport FLANNEL_MTU=1430\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		e, err := ParseSubnetEnv(data)
		if err != nil {
			return
		}
		if again, err := ParseSubnetEnv([]byte(e.Render())); err != nil || again != e {
			t.Fatalf("%+v written and read is %+v, %v", e, again, err)
		}
	})
}
