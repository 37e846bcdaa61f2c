package conntrack

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"weft/internal/kernel/netns"
)

// crowd is how many flows of UDP the table holds in the benchmark. Every thousandth leads to crowdVIP, answered by crowdEndpoint; the
// others to ports beside it, half of them without translation.
const crowd = 100_000

var crowdVIP, crowdEndpoint = netip.MustParseAddrPort("10.9.9.9:53"), netip.MustParseAddrPort("10.9.1.2:5300")

// fill makes the crowd.
func fill(tb testing.TB) {
	tb.Helper()
	netns.Need(tb)
	run(tb, `ip link set lo up; conntrack -F 2>/dev/null; nft flush ruleset; nft 'table ip t { chain o { type nat hook output priority -100; }; }'`)
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		tb.Fatal(err)
	}
	defer func() { _ = unix.Close(fd) }()
	for k := 0; k < crowd; {
		var batch []byte
		for range 100 {
			batch = append(batch, create(k)...)
			k++
		}
		if err := unix.Sendto(fd, batch, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
			tb.Fatal(err)
		}
	}
	b := make([]byte, 1<<16)
	if n, _, err := unix.Recvfrom(fd, b, unix.MSG_DONTWAIT); err == nil {
		tb.Fatalf("create a flow: %v", unix.Errno(-int32(binary.NativeEndian.Uint32(b[16:n]))))
	}
	all, err := new(Table).List(udp4)
	if err != nil || len(all) != crowd {
		tb.Fatalf("%d flows, %v", len(all), err)
	}
}

var udp4 = Query{Family: unix.AF_INET, Protocol: unix.IPPROTO_UDP}

// create is the message that makes the kth flow.
func create(k int) []byte {
	const messageNew, ctaNATDst, ctaTimeout = 0, 13, 7 // IPCTNL_MSG_CT_NEW
	client := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 8, byte(k >> 16), byte(k >> 8)}), 10000+uint16(k&0xff))
	to, answerer := crowdVIP, crowdEndpoint
	if k%1000 != 0 {
		to = netip.AddrPortFrom(to.Addr(), 1000+uint16(k%1000))
		if k%2 == 0 {
			answerer = to
		}
	}
	r := request(messageNew, unix.AF_INET, unix.NLM_F_CREATE|unix.NLM_F_EXCL)
	for typ, x := range map[int][2]netip.AddrPort{ctaTupleOrig: {client, to}, ctaTupleReply: {to, client}} {
		t := nl.NewRtAttr(typ|unix.NLA_F_NESTED, nil)
		ip := t.AddRtAttr(ctaTupleIP|unix.NLA_F_NESTED, nil)
		ip.AddRtAttr(ctaSrc4, x[0].Addr().AsSlice())
		ip.AddRtAttr(ctaDst4, x[1].Addr().AsSlice())
		proto := t.AddRtAttr(ctaTupleProto|unix.NLA_F_NESTED, nil)
		proto.AddRtAttr(ctaProtoNum, []byte{unix.IPPROTO_UDP})
		proto.AddRtAttr(ctaSport, binary.BigEndian.AppendUint16(nil, x[0].Port()))
		proto.AddRtAttr(ctaDprt, binary.BigEndian.AppendUint16(nil, x[1].Port()))
		r.AddData(t)
	}
	if answerer != to {
		nat := nl.NewRtAttr(ctaNATDst|unix.NLA_F_NESTED, nil)
		for typ := range 2 { // CTA_NAT_V4_MINIP, CTA_NAT_V4_MAXIP
			nat.AddRtAttr(typ+1, answerer.Addr().AsSlice())
		}
		ports := nat.AddRtAttr(3|unix.NLA_F_NESTED, nil) // CTA_NAT_PROTO
		for typ := range 2 {
			ports.AddRtAttr(typ+1, binary.BigEndian.AppendUint16(nil, answerer.Port()))
		}
		r.AddData(nat)
	}
	r.AddData(nl.NewRtAttr(ctaTimeout, binary.BigEndian.AppendUint32(nil, 600)))
	return r.Serialize()
}

// BenchmarkList compares, in turns, what a look at one service's flows among 100,000 costs: with the kernel's filter, and with all of UDP
// read and chosen here, as kube-proxy does.
func BenchmarkList(b *testing.B) {
	fill(b)
	one := udp4
	one.To = []netip.AddrPort{crowdVIP}
	var took, cpu [2][]time.Duration
	for b.Loop() {
		for i, q := range []Query{one, udp4} {
			begun, used := time.Now(), processor(b)
			all, err := new(Table).List(q)
			took[i], cpu[i] = append(took[i], time.Since(begun)), append(cpu[i], processor(b)-used)
			if want := []int{crowd / 1000, crowd}[i]; err != nil || len(all) != want {
				b.Fatal(fmt.Errorf("query %d: %d flows, want %d: %w", i, len(all), want, err))
			}
		}
	}
	median := func(all []time.Duration) float64 {
		return float64(slices.Sorted(slices.Values(all))[len(all)/2]) / float64(time.Millisecond)
	}
	b.ReportMetric(0, "ns/op")
	for i, name := range []string{"filter", "all"} {
		b.ReportMetric(median(took[i]), name+"-ms")
		b.ReportMetric(median(cpu[i]), name+"-cpu-ms")
	}
	b.ReportMetric(median(cpu[0])/median(cpu[1]), "cpu-ratio")
	b.ReportMetric(median(took[0])/median(took[1]), "ratio")
}

// processor is the processor time this process has used.
func processor(b *testing.B) time.Duration {
	b.Helper()
	var r unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &r); err != nil {
		b.Fatal(err)
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}
