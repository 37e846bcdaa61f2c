package bench

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"weft/internal/kernel/netns"
	"weft/test/daemon"
)

// contestant is one path that packets take, with what was measured of it.
type contestant struct {
	name      string
	from, to  *netns.NS
	at        netip.Addr
	open      *opener
	stream    *stream
	took      []time.Duration // of connections
	p50, rate []float64       // of connections in ns and of bulk in bytes/s, one entry for each turn
	perCPU    []float64       // bytes for a second of processor time
}

// What a turn of one path is. Turns are short, so that what else the machine does is in all paths' turns alike.
const (
	opens     = 10                    // connections
	bulkTurn  = 60 * time.Millisecond // of bulk that is measured
	bulkBegin = 15 * time.Millisecond // before that
	turns     = 20                    // of connections in a round
	bulkTurns = 3                     // of bulk in a round
)

// podPaths makes the paths: weft's and what flannel builds, from pod to pod, and that between hosts.
func podPaths(b *testing.B) []*contestant {
	b.Helper()
	netns.Need(b)
	ref, ours := newPair(b, "ref"), newPair(b, "weft")
	ref.reference()
	ours.agents()
	return []*contestant{
		{name: "weft", from: ours.pods[0], to: ours.pods[1], at: ours.ips[1]},
		{name: "flannel", from: ref.pods[0], to: ref.pods[1], at: ref.ips[1]},
		{name: "underlay", from: ref.hosts[0], to: ref.hosts[1], at: ref.addrs[1]},
	}
}

// BenchmarkPath measures pod to pod between two hosts: through weft, through what flannel builds, and between the hosts themselves. They
// take turns, and each turn gives a ratio to flannel's of just then: the ratios' medians are what counts. Where others use the processors, start it by nice -n -20: waiting for them is no
// property of a path.
func BenchmarkPath(b *testing.B) {
	race := podPaths(b)
	for _, c := range race {
		c.open, c.stream = newOpener(b, c), newStream(b, c)
		c.open.take(b, 200) // warm
	}
	round := 0
	for b.Loop() {
		for turn := range turns {
			for i := range race {
				c := race[(i+turn+round)%len(race)] // nobody is always the first
				took := c.open.take(b, opens)
				c.took, c.p50 = append(c.took, took...), append(c.p50, float64(daemon.Quantile(took, 0.5)))
			}
		}
		for turn := range bulkTurns {
			for i := range race {
				c := race[(i+turn+round)%len(race)]
				c.stream.send(b, bulkBegin)
				rate, perCPU := c.stream.send(b, bulkTurn)
				c.rate, c.perCPU = append(c.rate, rate), append(c.perCPU, perCPU)
			}
		}
		round++
	}
	weft, flannel := race[0], race[1]
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(ratio(weft.p50, flannel.p50), "connect-ratio")
	b.ReportMetric(ratio(weft.rate, flannel.rate), "bulk-ratio")
	b.ReportMetric(ratio(weft.perCPU, flannel.perCPU), "bulk/cpu-ratio")
	for _, c := range race {
		b.ReportMetric(float64(daemon.Quantile(c.took, 0.5))/1e3, c.name+"-connect-p50-us")
		b.ReportMetric(float64(daemon.Quantile(c.took, 0.99))/1e3, c.name+"-connect-p99-us")
		b.ReportMetric(middle(c.rate)*8/1e9, c.name+"-Gbit/s")
	}
}

// ratio is the median of the turns' ratios.
func ratio[T ~int64 | ~float64](ours, theirs []T) float64 {
	var all []float64
	for i := range ours {
		all = append(all, float64(ours[i])/float64(theirs[i]))
	}
	return middle(all)
}

func middle(all []float64) float64 {
	if len(all) == 0 {
		return 0
	}
	return slices.Sorted(slices.Values(all))[len(all)/2]
}
