package userspace_test

import (
	"net/netip"
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"weft/internal/api"
	"weft/internal/kernel/netns"
	"weft/internal/proxy"
	"weft/internal/proxy/userspace"
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
	if d.roll(3) == 0 {
		return netip.AddrFrom16([16]byte{0xfd, 14: byte(d.roll(256)), 15: byte(d.roll(256))})
	}
	return netip.AddrFrom4([4]byte{byte(d.roll(256)), 16, byte(d.roll(256)), byte(d.roll(256))})
}

func (d *dice) prefix() netip.Prefix {
	a := d.addr()
	return netip.PrefixFrom(a, d.roll(a.BitLen()+1))
}

func (d *dice) service(name string) api.ServicePort {
	s := api.ServicePort{
		Name:     api.ServicePortName{Namespace: "default", Name: name, Port: []string{"", "http"}[d.roll(2)]},
		Protocol: []api.Protocol{api.TCP, api.UDP, api.SCTP}[d.roll(3)],
		Port:     uint16(1 + d.roll(255)), NodePort: uint16(d.roll(3) * 30001),
		ExternalLocal: d.roll(2) == 1, InternalLocal: d.roll(2) == 1, AffinitySeconds: d.roll(2) * 10800,
	}
	for range d.roll(3) {
		s.ClusterIPs = append(s.ClusterIPs, d.addr())
	}
	for range d.roll(3) {
		s.External = append(s.External, d.addr())
	}
	for range d.roll(3) {
		s.LoadBalancer = append(s.LoadBalancer, d.prefix())
	}
	for range d.roll(3) {
		s.SourceRanges = append(s.SourceRanges, d.prefix())
	}
	for range d.roll(4) {
		s.Endpoints = append(s.Endpoints, api.Endpoint{
			Addr: netip.AddrPortFrom(d.addr(), uint16(d.roll(256))), Node: []string{"", "kube-node1", "b"}[d.roll(3)],
			Ready: d.roll(2) == 1, Serving: d.roll(2) == 1, Terminating: d.roll(2) == 1,
		})
	}
	return s
}

// FuzzRules plans odd services: the plan never panics, prints as what it is read back from, is the union of the services' plans in any
// order of their arrival, and iptables-restore takes it.
func FuzzRules(f *testing.F) {
	f.Add("a", []byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2})
	f.Add("x\"y\\z'\n;", []byte("everything that is allowed, and some that isn't, 0123456789 and on and on and on"))
	f.Add("", []byte("\x02\x01\x03\x00\xff\x80\x02\x02\x02\x02\x02\x02\x02\x01\x01\x01\x01\x01"))
	f.Fuzz(func(t *testing.T, name string, data []byte) {
		d := dice(data)
		n := proxy.Node{Name: "kube-node1", Addresses: []netip.Addr{netip.MustParseAddr("172.17.42.31"), netip.MustParseAddr("fd00:17::31")}}
		for range d.roll(3) {
			n.ClusterCIDRs = append(n.ClusterCIDRs, d.prefix())
		}
		for range d.roll(3) {
			n.NodePortAddresses = append(n.NodePortAddresses, d.prefix())
		}
		n.LocalhostNodePorts, n.OpenNodePorts, n.NoSCTP = d.roll(2) == 1, d.roll(2) == 1, d.roll(2) == 1
		services := []api.ServicePort{d.service(name), d.service(name + "2")}
		ports := hold(userspace.AllListeners(n, services, nil))
		all := userspace.AllRules(n, services, ports)
		parts := xt.Union(userspace.Base(n), userspace.Rules(n, services[0], ports), userspace.Rules(n, services[1], ports))
		if d := cmp.Diff(all.String(), parts.String()); d != "" {
			t.Fatalf("(-all +union):\n%s", d)
		}
		for _, v6 := range []bool{false, true} {
			tables := *all.Family(v6)
			read, err := xt.Parse(tables.String())
			if err != nil || read.String() != tables.String() {
				t.Fatalf("%v: reads back as\n%s\nwas\n%s", err, read, tables)
			}
			if len(data)%64 == 1 || len(data) > 64 { // the program takes long
				judge(t, all, v6)
			}
		}
	})
}

func judge(t *testing.T, rules xt.Ruleset, v6 bool) {
	t.Helper()
	netns.Need(t)
	program := "iptables-nft-restore"
	if v6 {
		program = "ip6tables-nft-restore"
	}
	input := xt.RestoreInput(xt.Diff(rules, xt.Ruleset{}), v6)
	cmd := exec.Command(program, "--noflush", "--test")
	cmd.Stdin = strings.NewReader(input)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s\n%s", program, err, out, input)
	}
}
