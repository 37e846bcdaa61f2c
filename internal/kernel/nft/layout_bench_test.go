package nft_test

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"weft/internal/api"
	kernel "weft/internal/kernel/nft"
	"weft/internal/nft"
	"weft/internal/proxy/nftables"
)

// layoutLimit is how long the program nft gets for one transaction; a size at which it takes longer is measured without it.
const layoutLimit = 60 * time.Second

// BenchmarkLayout programs the same services twice, by turns: as weft does, and as kube-proxy's mode nftables lays them out, with a chain for each
// service that draws from an anonymous map, and a chain for each endpoint, through the program nft. Both start with an empty kernel; then
// one endpoint of one service is replaced, 20 times. The times of the program include its start, those of weft the planning. WEFT_LAYOUT
// names other numbers of services than 20: the program takes ever longer, and needs root outside of user namespaces for more (large messages).
func BenchmarkLayout(b *testing.B) {
	if _, err := exec.LookPath("nft"); err != nil {
		b.Skip("no program nft")
	}
	for size := range strings.FieldsSeq(cmp.Or(os.Getenv("WEFT_LAYOUT"), "20")) {
		b.Run("services="+size, func(b *testing.B) {
			n, err := strconv.Atoi(size)
			if err != nil {
				b.Fatal(err)
			}
			benchLayout(b, services(n, 10))
		})
	}
}

func benchLayout(b *testing.B, all []api.ServicePort) {
	b.Helper()
	c := open(b)
	var full, change [2][]time.Duration
	inTime := true
	for b.Loop() {
		byWeft(b, c, all, &full[0], &change[0])
		inTime = inTime && byProgram(b, all, &full[1], &change[1])
	}
	b.ReportMetric(0, "ns/op")
	for i, name := range []string{"weft", "nft"} {
		if i == 1 && !inTime {
			b.Logf("nft takes longer than %s", layoutLimit)
			return
		}
		b.ReportMetric(float64(median(full[i]).Microseconds())/1000, name+"-full-ms")
		b.ReportMetric(float64(median(change[i]).Microseconds())/1000, name+"-change-ms")
	}
	b.ReportMetric(float64(median(full[0]))/float64(median(full[1])), "full-ratio")
	b.ReportMetric(float64(median(change[0]))/float64(median(change[1])), "change-ratio")
}

const layoutChanges = 20

// replaced is the i-th service with another endpoint.
func replaced(all []api.ServicePort, i int) api.ServicePort {
	s := all[i*37%len(all)]
	s.Endpoints = slices.Clone(s.Endpoints)
	s.Endpoints[5].Addr = netip.MustParseAddrPort(fmt.Sprintf("172.31.0.%d:8080", i+1))
	return s
}

func byWeft(b *testing.B, c *kernel.Conn, all []api.ServicePort, full, change *[]time.Duration) {
	b.Helper()
	begin := time.Now()
	m := nft.NewMerge(nft.INet, nft.TableName)
	if err := c.Apply(append([]nft.Op{newTable()}, plan(m, all)...)); err != nil {
		b.Fatal(err)
	}
	*full = append(*full, time.Since(begin))
	for i := range layoutChanges {
		begin := time.Now()
		s := replaced(all, i)
		if err := c.Apply(m.Set(s.Name.String(), nftables.Planner{}.Plan(node, s))); err != nil {
			b.Fatal(err)
		}
		*change = append(*change, time.Since(begin))
	}
	remove(b, c)
}

// byProgram is false when the program takes too long.
func byProgram(b *testing.B, all []api.ServicePort, full, change *[]time.Duration) bool {
	b.Helper()
	var text strings.Builder
	layoutBase(&text)
	for _, s := range all {
		layoutService(&text, s)
	}
	took, ok := byNFT(b, text.String())
	if !ok {
		return false
	}
	*full = append(*full, took)
	for i := range layoutChanges {
		text.Reset()
		s := replaced(all, i)
		fmt.Fprintf(&text, "flush chain ip proxy %s\n", serviceChain(s))
		layoutEndpoint(&text, s, s.Endpoints[5])
		layoutDraw(&text, s)
		took, ok := byNFT(b, text.String())
		if !ok {
			return false
		}
		*change = append(*change, took)
	}
	_, ok = byNFT(b, "delete table ip proxy\n")
	return ok
}

// byNFT has nft(8) do a transaction; false: it was not done in time, and nothing is changed.
func byNFT(b *testing.B, text string) (time.Duration, bool) {
	b.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), layoutLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, "nft", "-f", "-")
	cmd.Stdin = strings.NewReader(text)
	begin := time.Now()
	out, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		return 0, false
	}
	if err != nil {
		b.Fatalf("nft: %v: %.300s", err, out)
	}
	return time.Since(begin), true
}

// layoutBase is what is there besides the services: the hooks, and the map by address, protocol and port.
func layoutBase(w *strings.Builder) {
	w.WriteString(`add table ip proxy
add map ip proxy service-ips { type ipv4_addr . inet_proto . inet_service : verdict; }
add set ip proxy cluster-ips { type ipv4_addr; }
add chain ip proxy to-mark
add rule ip proxy to-mark meta mark set meta mark or 0x4000
add chain ip proxy services
add rule ip proxy services ip daddr . meta l4proto . th dport vmap @service-ips
add chain ip proxy prerouting { type nat hook prerouting priority dstnat; }
add rule ip proxy prerouting jump services
add chain ip proxy output { type nat hook output priority -100; }
add rule ip proxy output jump services
add chain ip proxy postrouting { type nat hook postrouting priority srcnat; }
add rule ip proxy postrouting meta mark and 0x4000 != 0 meta mark set meta mark xor 0x4000 masquerade fully-random
`)
}

// layoutService is a service: its chain, those of its endpoints, and the element that leads there.
func layoutService(w *strings.Builder, s api.ServicePort) {
	chain := serviceChain(s)
	fmt.Fprintf(w, "add chain ip proxy %s\n", chain)
	for _, e := range s.Endpoints {
		layoutEndpoint(w, s, e)
	}
	layoutDraw(w, s)
	fmt.Fprintf(w, "add element ip proxy cluster-ips { %s }\n", s.ClusterIPs[0])
	fmt.Fprintf(w, "add element ip proxy service-ips { %s . tcp . %d : goto %s }\n", s.ClusterIPs[0], s.Port, chain)
}

func serviceChain(s api.ServicePort) string { return "service-" + s.Name.Name }

func endpointChain(s api.ServicePort, e api.Endpoint) string {
	return "endpoint-" + s.Name.Name + "-" + e.Addr.Addr().String() + "/" + fmt.Sprint(e.Addr.Port())
}

func layoutEndpoint(w *strings.Builder, s api.ServicePort, e api.Endpoint) {
	chain := endpointChain(s, e)
	fmt.Fprintf(w, "add chain ip proxy %s\n", chain)
	fmt.Fprintf(w, "add rule ip proxy %s ip saddr %s jump to-mark\n", chain, e.Addr.Addr())
	fmt.Fprintf(w, "add rule ip proxy %s meta l4proto tcp dnat to %s\n", chain, e.Addr)
}

// layoutDraw are the rules of a service's chain.
func layoutDraw(w *strings.Builder, s api.ServicePort) {
	chain := serviceChain(s)
	fmt.Fprintf(w, "add rule ip proxy %s ip daddr %s tcp dport %d ip saddr != 172.16.0.0/12 jump to-mark\n", chain, s.ClusterIPs[0], s.Port)
	fmt.Fprintf(w, "add rule ip proxy %s numgen random mod %d vmap {", chain, len(s.Endpoints))
	for i, e := range s.Endpoints {
		if i > 0 {
			w.WriteString(",")
		}
		fmt.Fprintf(w, " %d : goto %s", i, endpointChain(s, e))
	}
	w.WriteString(" }\n")
}
