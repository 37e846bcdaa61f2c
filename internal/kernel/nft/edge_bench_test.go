package nft_test

import (
	"cmp"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"weft/internal/kernel/netns"
	kernel "weft/internal/kernel/nft"
	"weft/internal/nft"
	"weft/internal/overlay/edge"
)

// manyMembers is a network of n peers besides the two hosts of the wire.
func manyMembers(n int) []edge.Member {
	out := []edge.Member{
		{VNI: 1, Outer: netip.MustParseAddr("192.0.2.1"), Subnet: netip.MustParsePrefix("172.16.1.0/24")},
		{VNI: 1, Outer: netip.MustParseAddr("192.0.2.2"), Subnet: netip.MustParsePrefix("172.16.2.0/24")},
	}
	for i := range n {
		out = append(out, edge.Member{
			VNI: 1, Outer: netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)}),
			Subnet: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 0}), 24),
		})
	}
	return out
}

// vxlanWire joins the test's namespace, pod address 172.16.1.1, with another, 172.16.2.1, by VXLAN over a veth pair.
func vxlanWire(b *testing.B) *netns.NS {
	b.Helper()
	ns, err := netns.New("/run/netns/far")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = ns.Close() })
	run(b, `ip link add vfar type veth peer name eth0 netns far
		ip addr add 192.0.2.1/24 dev vfar; ip link set vfar up; ip -n far addr add 192.0.2.2/24 dev eth0; ip -n far link set eth0 up
		ip link add vx type vxlan id 1 local 192.0.2.1 remote 192.0.2.2 dev vfar dstport 8472
		ip -n far link add vx type vxlan id 1 local 192.0.2.2 remote 192.0.2.1 dev eth0 dstport 8472
		ip link set vx addrgenmode none; ip -n far link set vx addrgenmode none
		ip link set vx mtu 1450 up; ip -n far link set vx mtu 1450 up
		ip addr add 172.16.1.1/12 dev vx; ip -n far addr add 172.16.2.1/12 dev vx
		ip neigh replace 172.16.2.1 lladdr $(ip -n far link show vx | grep -o 'ether [^ ]*' | cut -c7-) dev vx
		ip -n far neigh replace 172.16.1.1 lladdr $(ip link show vx | grep -o 'ether [^ ]*' | cut -c7-) dev vx`)
	b.Cleanup(func() { run(b, "ip link del vx; ip link del vfar") })
	return ns
}

// BenchmarkEdgeCheck measures what the check costs between two hosts that both have it, in a network of 5,000 peers: connecting, one
// byte there and back, and bulk, in turns with the rule that leads to the check away. The ratios are with to without: of the median time, and of the bytes.
func BenchmarkEdgeCheck(b *testing.B) {
	near := open(b)
	ns := vxlanWire(b)
	var far *kernel.Conn
	if err := ns.Do(func() (err error) { far, err = kernel.Open(); return err }); err != nil {
		b.Fatal(err)
	}
	defer far.Close()
	serve(b, "172.16.1.1:9000")
	members := manyMembers(5000)
	c := edgeConfig(members)
	parts := map[string]nft.Table{"": edge.Rules(c)}
	for i, m := range members {
		parts[fmt.Sprint(i)] = edge.Elements(m)
	}
	table := nft.Union(parts)
	conns := []*kernel.Conn{near, far}
	for _, k := range conns {
		if err := k.Apply(nft.Diff(table, read(b, k))); err != nil {
			b.Fatal(err)
		}
	}
	with := nft.Op{Verb: nft.Change, Kind: nft.KindRules, Family: nft.INet, Table: nft.TableName, Chain: *table.Chain("edge-port-8472")}
	without := with
	without.Chain.Rules = []nft.Rule{{Statements: []nft.Statement{nft.Notrack{}, nft.Verdict{Kind: nft.Accept}}}}
	var connect [2][]time.Duration
	var bulk [2][]float64
	var connectCPU, bulkCPU [2][]float64 // of both hosts: tells less of a busy machine than the clock
	for round := 0; b.Loop(); round++ {
		for _, i := range []int{round % 2, 1 - round%2} { // each is first as often as the other
			op := []nft.Op{without, with}[i]
			for _, k := range conns {
				if err := k.Apply([]nft.Op{op}); err != nil {
					b.Fatal(err)
				}
			}
			if err := ns.Do(func() error {
				cpu := cpuTime(b)
				for range 100 {
					begun := time.Now()
					if err := oneByte(); err != nil {
						return err
					}
					connect[i] = append(connect[i], time.Since(begun))
				}
				connectCPU[i] = append(connectCPU[i], float64(cpuTime(b)-cpu))
				cpu = cpuTime(b)
				n, err := upload(50 * time.Millisecond)
				bulk[i] = append(bulk[i], n)
				bulkCPU[i] = append(bulkCPU[i], float64(cpuTime(b)-cpu)/n)
				return err
			}); err != nil {
				b.Fatal(err)
			}
		}
	}
	if n := counts(b, near)[edge.Source.Chain()] + counts(b, near)[edge.Peer.Chain()]; n > 0 {
		b.Fatalf("%d packets were refused", n)
	}
	b.ReportMetric(float64(median(connect[0]).Nanoseconds())/1000, "µs-connect-without")
	b.ReportMetric(float64(median(connect[1]))/float64(median(connect[0])), "connect-ratio")
	b.ReportMetric(median(connectCPU[1])/median(connectCPU[0]), "connect-cpu-ratio")
	b.ReportMetric(median(bulkCPU[1])/median(bulkCPU[0]), "bulk-cpu-ratio")
	b.ReportMetric(median(bulk[0])/0.05/1e6, "MB/s-without")
	b.ReportMetric(median(bulk[1])/median(bulk[0]), "bulk-ratio")
}

func median[T cmp.Ordered](all []T) T {
	slices.Sort(all)
	return all[len(all)/2]
}

// serve answers each connection with its first byte, and swallows the rest.
func serve(b *testing.B, addr string) {
	b.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				one := make([]byte, 1)
				if _, err := io.ReadFull(c, one); err == nil {
					_, _ = c.Write(one)
				}
				_, _ = io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{c}, make([]byte, 256<<10))
			}()
		}
	}()
}

func oneByte() error {
	c, err := net.Dial("tcp", "172.16.1.1:9000")
	if err != nil {
		return err
	}
	defer c.Close()
	one := []byte{1}
	if _, err := c.Write(one); err != nil {
		return err
	}
	_, err = io.ReadFull(c, one)
	return err
}

// upload sends for a while and returns how many bytes.
func upload(d time.Duration) (float64, error) {
	c, err := net.Dial("tcp", "172.16.1.1:9000")
	if err != nil {
		return 0, err
	}
	defer c.Close()
	block, total := make([]byte, 256<<10), 0.0
	for end := time.Now().Add(d); time.Now().Before(end); {
		n, err := c.Write(block)
		if err != nil {
			return total, err
		}
		total += float64(n)
	}
	return total, nil
}
