package facts

import (
	"strings"
	"testing"
	"time"
)

func TestParameters(t *testing.T) {
	for _, x := range []struct {
		s    Services
		mode ProxyMode
		want string
	}{
		{Services{Liberal: true}, IPTables, "sysctl net/netfilter/nf_conntrack_tcp_be_liberal=1\n"},
		{Services{Liberal: true, Tracking: KubeProxyTracking}, NoProxy, ""},
		{Services{Tracking: KubeProxyTracking, Untracked: true}, NFTables, ""},
		{
			Services{Tracking: KubeProxyTracking},
			NFTables,
			"sysctl net/netfilter/nf_conntrack_tcp_timeout_close_wait=3600\nsysctl net/netfilter/nf_conntrack_tcp_timeout_established=86400\n",
		},
		{Services{Tracking: Tracking{UDP: 40 * time.Second}}, Userspace, "sysctl net/netfilter/nf_conntrack_udp_timeout=40\n"},
	} {
		if got := x.s.Parameters(x.mode).String(); got != x.want {
			t.Errorf("%+v in mode %s: %q, want %q", x.s, x.mode, got, x.want)
		}
	}
}

func TestTrackingValidate(t *testing.T) {
	for text, f := range map[string]Tracking{
		"--conntrack-max-per-core=-1": {MaxPerCore: -1}, "--conntrack-min=99999999": {Min: 99999999}, "--conntrack-udp-timeout=1.5s": {UDP: 1500 * time.Millisecond},
		"--conntrack-tcp-timeout-established=-1s": {TCPEstablished: -time.Second}, "--conntrack-udp-timeout-stream=1000h0m0s": {UDPStream: 1000 * time.Hour},
	} {
		if err := f.Validate(); err == nil || !strings.HasPrefix(err.Error(), text+": want ") {
			t.Errorf("%+v: %v, want %s", f, err, text)
		}
	}
	if err := KubeProxyTracking.Validate(); err != nil {
		t.Error(err)
	}
}
