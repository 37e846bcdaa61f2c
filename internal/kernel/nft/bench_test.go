package nft_test

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"weft/internal/api"
	kernel "weft/internal/kernel/nft"
	"weft/internal/nft"
	"weft/internal/proxy/nftables"
)

// sizes are numbers of services, of ten endpoints each; with -short without the largest.
func sizes() []int {
	if testing.Short() {
		return []int{1000, 10000}
	}
	return []int{1000, 10000, 50000}
}

func remove(b *testing.B, c *kernel.Conn) {
	b.Helper()
	if err := c.Apply([]nft.Op{newTable(), {Verb: nft.Del, Kind: nft.KindTable, Family: nft.INet, Table: nft.TableName}}); err != nil {
		b.Fatal(err)
	}
}

// cpuTime is what the process has used of the processors, in user and kernel mode: unlike the clock it tells little of a busy machine.
func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkFull programs all services into an empty kernel, from the services to the last element. What the encoding takes of it is measured
// by doing it once more.
func BenchmarkFull(b *testing.B) {
	for _, n := range sizes() {
		b.Run(fmt.Sprintf("services=%d", n), func(b *testing.B) {
			c := open(b)
			all := services(n, 10)
			var planned, applied, encoded, cpu time.Duration
			for b.Loop() {
				cpu -= cpuTime(b)
				begin := time.Now()
				m := nft.NewMerge(nft.INet, nft.TableName)
				ops := append([]nft.Op{newTable()}, plan(m, all)...)
				planned += time.Since(begin)
				begin = time.Now()
				if err := c.Apply(ops); err != nil {
					b.Fatal(err)
				}
				applied += time.Since(begin)
				cpu += cpuTime(b)
				b.StopTimer()
				remove(b, c)
				begin = time.Now()
				kernel.Encode(ops)
				encoded += time.Since(begin)
				b.StartTimer()
			}
			b.ReportMetric(float64(encoded.Milliseconds())/float64(b.N), "encode-ms")
			b.ReportMetric(float64((applied-encoded).Milliseconds())/float64(b.N), "kernel-ms")
			b.ReportMetric(float64(cpu.Milliseconds())/float64(b.N), "cpu-ms")
			b.ReportMetric(float64(planned.Milliseconds())/float64(b.N), "plan-ms")
			b.ReportMetric(float64((planned+applied).Milliseconds())/float64(b.N), "plan+apply-ms")
		})
	}
}

// BenchmarkRestart reads a full table and compares it with the plan: an agent that starts with everything in place, and one that finds ten
// services too many.
func BenchmarkRestart(b *testing.B) {
	for _, n := range sizes() {
		b.Run(fmt.Sprintf("services=%d", n), func(b *testing.B) {
			c := open(b)
			all := services(n, 10)
			if err := c.Apply(append([]nft.Op{newTable()}, plan(nft.NewMerge(nft.INet, nft.TableName), all)...)); err != nil {
				b.Fatal(err)
			}
			var read [2]time.Duration
			for b.Loop() {
				for i, services := range [][]api.ServicePort{all, all[10:]} {
					m := nft.NewMerge(nft.INet, nft.TableName)
					plan(m, services)
					want := m.Unsorted()
					begin := time.Now()
					ops, err := c.Compare(&want)
					read[i] += time.Since(begin)
					if err != nil {
						b.Fatal(err)
					}
					if len(ops) > 0 != (i == 1) {
						b.Fatalf("%d ops", len(ops))
					}
				}
			}
			b.ReportMetric(float64(read[0].Milliseconds())/float64(b.N), "read-ms")
			b.ReportMetric(float64(read[1].Milliseconds())/float64(b.N), "read-more-ms")
		})
	}
}

// BenchmarkEndpoint changes one endpoint of one service, by replacing it and by taking it away and bringing it back.
func BenchmarkEndpoint(b *testing.B) {
	for _, kind := range []string{"replace", "remove"} {
		for _, n := range sizes() {
			b.Run(fmt.Sprintf("%s/services=%d", kind, n), func(b *testing.B) { benchEndpoint(b, kind, n) })
		}
	}
}

func benchEndpoint(b *testing.B, kind string, n int) {
	c := open(b)
	all := services(n, 10)
	m := nft.NewMerge(nft.INet, nft.TableName)
	if err := c.Apply(append([]nft.Op{newTable()}, plan(m, all)...)); err != nil {
		b.Fatal(err)
	}
	var took []time.Duration
	i := 0
	for b.Loop() {
		i++
		s := all[i/2*37%n]
		s.Endpoints = slices.Clone(s.Endpoints)
		switch {
		case i%2 == 1:
		case kind == "replace":
			s.Endpoints[5].Addr = netip.MustParseAddrPort("172.31.0.1:8080")
		default:
			s.Endpoints = s.Endpoints[:9]
		}
		begin := time.Now()
		if err := c.Apply(m.Set(s.Name.String(), nftables.Planner{}.Plan(node, s))); err != nil {
			b.Fatal(err)
		}
		took = append(took, time.Since(begin))
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-us")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-us")
}
