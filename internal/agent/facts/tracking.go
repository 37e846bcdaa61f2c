package facts

import (
	"fmt"
	"runtime"
	"strconv"
	"time"

	"weft/internal/netstate"
)

// Tracking is how much the host's connection tracking is to remember, and for how long (nf_conntrack-sysctl in the kernel's
// documentation). 0 leaves a parameter as it is.
type Tracking struct {
	MaxPerCore, Min int // connections: for each processor, and at least
	TCPEstablished  time.Duration
	TCPCloseWait    time.Duration
	UDP, UDPStream  time.Duration
}

// KubeProxyTracking are the defaults of kube-proxy 1.36, so that a host which changes from it goes on as it was.
var KubeProxyTracking = Tracking{MaxPerCore: 32768, Min: 131072, TCPEstablished: 24 * time.Hour, TCPCloseWait: time.Hour}

// Names of the parameters that are only ever raised.
const (
	TrackingMax     = "net/netfilter/nf_conntrack_max"
	TrackingBuckets = "net/netfilter/nf_conntrack_buckets"
)

// bucketStep is what the kernel rounds the number of buckets up to: a page of them.
const bucketStep = 512

// Room is how many connections are to have room at least, and in how many buckets: four to each, as the kernel has where it chooses the
// number itself. 0: as the host has it.
func (t Tracking) Room() (connections, buckets int) {
	if t.MaxPerCore == 0 {
		return 0, 0
	}
	n := max(t.MaxPerCore*runtime.NumCPU(), t.Min)
	return n, (n/4 + bucketStep - 1) / bucketStep * bucketStep
}

// Parameters are the kernel's that have one right value.
func (t Tracking) Parameters() netstate.State {
	state := netstate.New()
	for _, p := range []struct {
		name string
		d    time.Duration
	}{
		{"tcp_timeout_established", t.TCPEstablished},
		{"tcp_timeout_close_wait", t.TCPCloseWait},
		{"udp_timeout", t.UDP},
		{"udp_timeout_stream", t.UDPStream},
	} {
		if p.d > 0 {
			state.Add(netstate.Sysctl{Name: "net/netfilter/nf_conntrack_" + p.name, Value: strconv.Itoa(int(p.d / time.Second))})
		}
	}
	return state
}

// maxTimeout is the longest timeout that the kernel takes, in seconds times HZ as a signed number of 32 bits at HZ=1000.
const maxTimeout = 2147483 * time.Second

// Validate checks every field; the error names the flag, its value and what would be right.
func (t Tracking) Validate() error {
	for _, p := range []struct {
		flag string
		n    int
	}{{"--conntrack-max-per-core", t.MaxPerCore}, {"--conntrack-min", t.Min}} {
		if p.n < 0 || p.n > 1<<26 {
			return fmt.Errorf("%s=%d: want 0 (as the host has it) to %d", p.flag, p.n, 1<<26)
		}
	}
	for _, p := range []struct {
		flag string
		d    time.Duration
	}{
		{"--conntrack-tcp-timeout-established", t.TCPEstablished},
		{"--conntrack-tcp-timeout-close-wait", t.TCPCloseWait},
		{"--conntrack-udp-timeout", t.UDP},
		{"--conntrack-udp-timeout-stream", t.UDPStream},
	} {
		if p.d < 0 || p.d%time.Second != 0 || p.d > maxTimeout {
			return fmt.Errorf("%s=%s: want whole seconds up to %s, or 0 (as the host has it)", p.flag, p.d, maxTimeout)
		}
	}
	return nil
}
