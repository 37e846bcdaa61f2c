package bench

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"weft/internal/kernel/netns"
)

// contestant is one path that packets take, with what was measured of it, one entry for each round.
type contestant struct {
	name       string
	from, to   *netns.NS
	at         netip.Addr
	p50, p99   []time.Duration
	rate, perC []float64
}

// BenchmarkPath measures pod to pod between two hosts: through weft, through what flannel builds, and between the hosts themselves. They
// take turns, so that what else the machine does is in all of them; each round gives a ratio, and the ratios' median is what counts.
func BenchmarkPath(b *testing.B) {
	netns.Need(b)
	ref, ours := newPair(b, "ref"), newPair(b, "weft")
	ref.reference()
	ours.agents()
	race := []*contestant{
		{name: "weft", from: ours.pods[0], to: ours.pods[1], at: ours.ips[1]},
		{name: "flannel", from: ref.pods[0], to: ref.pods[1], at: ref.ips[1]},
		{name: "underlay", from: ref.hosts[0], to: ref.hosts[1], at: ref.addrs[1]},
	}
	for _, c := range race {
		connects(b, c.from, c.to, c.at, 200) // warm
	}
	round := 0
	for b.Loop() {
		for i := range race {
			c := race[(i+round)%len(race)] // nobody is always the first
			took := connects(b, c.from, c.to, c.at, 400)
			c.p50, c.p99 = append(c.p50, quantile(took, 0.5)), append(c.p99, quantile(took, 0.99))
		}
		for i := range race {
			c := race[(i+round)%len(race)]
			rate, perC := bulk(b, c.from, c.to, c.at, 300*time.Millisecond)
			c.rate, c.perC = append(c.rate, rate), append(c.perC, perC)
		}
		round++
	}
	weft, flannel := race[0], race[1]
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(ratio(weft.p50, flannel.p50), "connect-ratio")
	b.ReportMetric(ratio(weft.rate, flannel.rate), "bulk-ratio")
	b.ReportMetric(ratio(weft.perC, flannel.perC), "bulk/cpu-ratio")
	for _, c := range race {
		b.ReportMetric(float64(median(c.p50))/1e3, c.name+"-connect-p50-us")
		b.ReportMetric(float64(median(c.p99))/1e3, c.name+"-connect-p99-us")
		b.ReportMetric(middle(c.rate)*8/1e9, c.name+"-Gbit/s")
	}
}

// ratio is the median of the rounds' ratios.
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
