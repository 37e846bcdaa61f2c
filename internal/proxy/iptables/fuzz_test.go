package iptables_test

import (
	"net/netip"
	"testing"

	"weft/internal/api"
	"weft/internal/proxy"
	"weft/internal/proxy/iptables"
	"weft/internal/xt"
)

// dice turns the fuzzer's bytes into choices.
type dice []byte

func (d *dice) roll(n int) int {
	if len(*d) == 0 {
		return 0
	}
	b := (*d)[0]
	*d = (*d)[1:]
	return int(b) % n
}

func (d *dice) addr() netip.Addr {
	switch d.roll(8) {
	case 0, 1:
		return netip.AddrFrom16([16]byte{0xfd, 14: byte(d.roll(256)), 15: byte(d.roll(256))})
	case 2:
		return netip.AddrFrom16([16]byte{10: 0xff, 11: 0xff, 15: byte(d.roll(256))}) // IPv4 in IPv6
	case 3:
		return netip.Addr{}
	}
	return netip.AddrFrom4([4]byte{byte(d.roll(256)), 16, byte(d.roll(256)), byte(d.roll(256))})
}

func (d *dice) prefix() netip.Prefix {
	a := d.addr()
	return netip.PrefixFrom(a, d.roll(a.BitLen()+1))
}

func some[T any](d *dice, most int, one func() T) (out []T) {
	for range d.roll(most + 1) {
		out = append(out, one())
	}
	return out
}

func (d *dice) service(name string) api.ServicePort {
	return api.ServicePort{
		Name:     api.ServicePortName{Namespace: "default", Name: name, Port: []string{"", "http"}[d.roll(2)]},
		Protocol: []api.Protocol{api.TCP, api.UDP, api.SCTP, "QUIC"}[d.roll(4)],
		Port:     uint16(d.roll(256)), NodePort: uint16(d.roll(3) * 30001), HealthCheckNodePort: uint16(d.roll(2) * 32000),
		ExternalLocal: d.roll(2) == 1, InternalLocal: d.roll(2) == 1, MasqueradeDisabled: d.roll(2) == 1,
		AffinitySeconds: (d.roll(4) - 1) * 86399,
		ClusterIPs:      some(d, 2, d.addr), External: some(d, 2, d.addr),
		LoadBalancer: some(d, 2, d.prefix), SourceRanges: some(d, 2, d.prefix),
		Endpoints: some(d, 4, func() api.Endpoint {
			return api.Endpoint{
				Addr: netip.AddrPortFrom(d.addr(), uint16(d.roll(256))), Node: []string{"", "kube-node1", "b"}[d.roll(3)],
				Ready: d.roll(2) == 1, Serving: d.roll(2) == 1, Terminating: d.roll(2) == 1,
			}
		}),
	}
}

// FuzzPlan plans odd services: the plan never panics, is the union of the services' plans, prints as what it is read back from, and
// iptables-restore takes it.
func FuzzPlan(f *testing.F) {
	f.Add("a", []byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2})
	f.Add("x\"y\\z'\n;", []byte("everything that is allowed, and some that isn't, 0123456789 and on and on and on"))
	f.Add("b", []byte("\x02\x01\x03\x01\xff\x80\x01\x02\x01\x02\x02\x02\x02\x01\x05\x01\x01\x01\x01\x02\x04\x05\x07\x05\x06\x07\x07\x05\x04\x01\x02\x02"))
	f.Add("", []byte{})
	f.Fuzz(func(t *testing.T, name string, data []byte) {
		d := dice(data)
		p := iptables.Planner{
			MasqueradeAll: d.roll(2) == 1, KeepPorts: d.roll(2) == 1, Liberal: d.roll(2) == 1,
			Mark: uint32(d.roll(2) * 0x8000),
		}
		n := proxy.Node{Name: "kube-node1", Addresses: addrs("172.17.42.31", "fd00:17::31")}
		n.OpenNodePorts, n.NoSCTP = d.roll(2) == 1, d.roll(2) == 1
		n.ClusterCIDRs, n.NodePortAddresses = some(&d, 2, d.prefix), some(&d, 2, d.prefix)
		services := []api.ServicePort{d.service(name), d.service(name + "2")}
		union(t, "fuzz", p, n, services)
		all := p.All(n, services)
		for _, v6 := range []bool{false, true} {
			tables := *all.Family(v6)
			read, err := xt.Parse(tables.String())
			if err != nil || read.String() != tables.String() {
				t.Fatalf("%v: reads back as\n%s\nwas\n%s", err, read, tables)
			}
			if len(data)%16 == 1 || len(data) > 64 { // the program takes long
				judge(t, all, v6, "nft")
			}
		}
	})
}
