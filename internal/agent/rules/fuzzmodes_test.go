package rules

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"weft/internal/api"
	"weft/internal/explain"
	"weft/internal/kernel/netns"
	kernelnft "weft/internal/kernel/nft"
	"weft/internal/netstate"
	"weft/internal/nft"
	"weft/internal/packet"
	"weft/internal/proxy"
	iptproxy "weft/internal/proxy/iptables"
	"weft/internal/proxy/nftables"
	"weft/internal/proxy/userspace"
	"weft/internal/relay"
	"weft/internal/store/kube"
	"weft/internal/xt"
)

// world is what the services of the fuzzer are planned for: a node with pods, and clients.
var fuzzNode = proxy.Node{
	Name: "n1", Zone: "a", Addresses: []netip.Addr{netip.MustParseAddr("172.17.42.31"), netip.MustParseAddr("fd00:17::31")},
	ClusterCIDRs: []netip.Prefix{netip.MustParsePrefix("172.16.0.0/16"), netip.MustParsePrefix("fd00:16::/32")},
}

func fuzzLocal(a netip.Addr) bool { return slices.Contains(fuzzNode.Addresses, a) || a.IsLoopback() }

// dealer makes objects as an API server sends them, and as one without validation could.
type dealer struct {
	*rand.Rand
	hostile bool
}

func one[T any](d dealer, of ...T) T { return of[d.IntN(len(of))] }

func upTo[T any](d dealer, most int, make func() T) (out []T) {
	for range d.IntN(most + 1) {
		out = append(out, make())
	}
	return out
}

// odd is one of the bad texts, now and then.
func (d dealer) odd(good string) string {
	if d.hostile && d.IntN(8) == 0 {
		return one(d, "", "None", "::ffff:10.0.0.1", "fe80::1%eth0", "0.0.0.0", "::", "127.0.0.1", "224.0.0.1", "10.0.0", "ff02::1", "255.255.255.255", "x\ny")
	}
	return good
}

func (d dealer) port() int32 {
	if d.hostile && d.IntN(8) == 0 {
		return one[int32](d, -1, 0, 65535, 65536, 1<<31-1)
	}
	return one[int32](d, 80, 81, 443)
}

func (d dealer) addr(v4, v6 string) string {
	return d.odd(fmt.Sprintf(one(d, v4, v4, v6), d.IntN(6)+1))
}

func (d dealer) service(name string) *corev1.Service {
	i := d.IntN(8)
	s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, Annotations: map[string]string{}}}
	s.Spec.Type = one(d, corev1.ServiceTypeClusterIP, corev1.ServiceTypeNodePort, corev1.ServiceTypeLoadBalancer)
	s.Spec.ClusterIPs = one(d, []string{fmt.Sprintf("10.254.0.%d", i)}, []string{fmt.Sprintf("10.254.0.%d", i), fmt.Sprintf("fd00:10::%d", i)},
		[]string{fmt.Sprintf("fd00:10::%d", i)}, []string{d.odd("10.254.0.1")})
	s.Spec.ExternalIPs = upTo(d, 2, func() string { return d.addr("192.0.2.%d", "2001:db8::%d") })
	for _, a := range upTo(d, 2, func() string { return d.addr("198.51.100.%d", "2001:db8:1::%d") }) {
		s.Status.LoadBalancer.Ingress = append(s.Status.LoadBalancer.Ingress, corev1.LoadBalancerIngress{IP: a})
	}
	s.Spec.LoadBalancerSourceRanges = upTo(d, 2, func() string {
		return d.odd(one(d, "203.0.113.0/24", "172.16.0.0/12", "10.0.0.1/8", "2001:db8:2::/64", "0.0.0.0/0"))
	})
	if d.IntN(3) == 0 {
		s.Spec.SessionAffinity = corev1.ServiceAffinityClientIP
		if timeout := one[int32](d, 1, 10800, -5, 1<<31-1); d.hostile || timeout > 0 && timeout <= 86400 {
			s.Spec.SessionAffinityConfig = &corev1.SessionAffinityConfig{ClientIP: &corev1.ClientIPConfig{TimeoutSeconds: &timeout}}
		}
	}
	s.Spec.ExternalTrafficPolicy = one(d, corev1.ServiceExternalTrafficPolicyCluster, corev1.ServiceExternalTrafficPolicyLocal)
	internal := one(d, corev1.ServiceInternalTrafficPolicyCluster, corev1.ServiceInternalTrafficPolicyCluster, corev1.ServiceInternalTrafficPolicyLocal)
	s.Spec.InternalTrafficPolicy = &internal
	for p := range 1 + d.IntN(2) {
		sp := corev1.ServicePort{Name: fmt.Sprintf("p%d", p), Port: d.port() + int32(p)*1000, Protocol: one(d, corev1.ProtocolTCP, corev1.ProtocolUDP, corev1.ProtocolSCTP)}
		if s.Spec.Type != corev1.ServiceTypeClusterIP {
			sp.NodePort = one[int32](d, 30001, 30002, 30003, 30004)
		}
		if d.hostile {
			sp.Protocol = one(d, sp.Protocol, sp.Protocol, "QUIC", "")
			sp.Name = one(d, sp.Name, sp.Name, "", `"x" -j ACCEPT`)
		}
		s.Spec.Ports = append(s.Spec.Ports, sp)
	}
	if d.IntN(2) == 0 {
		s.Annotations["weft.dev/balance"] = one(d, "maglev", "least-connections", "round-robin", "?")
	}
	if d.IntN(3) == 0 {
		s.Annotations["weft.dev/weights"] = one(d, "zone/a=3", "node/n1=2,pod/web-1*=100", "zone/a=99,zone/b=97", "zone")
	}
	return s
}

func (d dealer) slice(service string, i int) *discoveryv1.EndpointSlice {
	s := &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{
		Namespace: "default", Name: fmt.Sprintf("%s-%d", service, i), Labels: map[string]string{discoveryv1.LabelServiceName: service},
	}}
	v4 := d.IntN(3) > 0
	s.AddressType = discoveryv1.AddressTypeIPv4
	if !v4 {
		s.AddressType = discoveryv1.AddressTypeIPv6
	}
	if d.hostile && d.IntN(10) == 0 {
		s.AddressType = one(d, discoveryv1.AddressTypeFQDN, "", discoveryv1.AddressTypeIPv4)
	}
	for p := range 2 {
		name, port, protocol := fmt.Sprintf("p%d", p), d.port(), one(d, corev1.ProtocolTCP, corev1.ProtocolUDP, corev1.ProtocolSCTP)
		s.Ports = append(s.Ports, discoveryv1.EndpointPort{Name: &name, Port: &port, Protocol: &protocol})
	}
	s.Endpoints = upTo(d, one(d, 3, 3, 20), func() discoveryv1.Endpoint {
		node, zone := one(d, "n1", "n2", ""), one(d, "a", "b")
		ready, serving, terminating := d.IntN(4) > 0, d.IntN(2) == 0, d.IntN(4) == 0
		a := d.odd(fmt.Sprintf("172.16.%d.%d", d.IntN(2)+1, d.IntN(9)+2))
		if !v4 {
			a = d.odd(fmt.Sprintf("fd00:16:%d::%d", d.IntN(2)+1, d.IntN(9)+2))
		}
		e := discoveryv1.Endpoint{
			Addresses: []string{a}, NodeName: &node, Zone: &zone,
			Conditions: discoveryv1.EndpointConditions{Ready: &ready, Serving: &serving, Terminating: &terminating},
			TargetRef:  &corev1.ObjectReference{Kind: "Pod", Name: fmt.Sprintf("web-%d", d.IntN(3))},
		}
		if d.hostile && d.IntN(10) == 0 {
			e = one(d, discoveryv1.Endpoint{}, discoveryv1.Endpoint{Addresses: []string{a, a}})
		}
		return e
	})
	return s
}

// services are the service ports of some services, with what they contest shared out.
func (d dealer) services(n int) []api.ServicePort {
	var all []api.ServicePort
	for i := range n {
		name := fmt.Sprintf("s%d", i)
		var parts []*discoveryv1.EndpointSlice
		for k := range d.IntN(3) {
			parts = append(parts, d.slice(name, k))
		}
		all = append(all, kube.ServicePorts(d.service(name), parts)...)
	}
	shared, _ := proxy.Shares(all)
	return shared
}

// modesPlan is a plan of the same services in every mode.
type modesPlan struct {
	table     nft.Table
	ipt, user xt.Ruleset
	listeners []netstate.Listener
}

func planModes(services []api.ServicePort) modesPlan {
	parts := map[string]nft.Table{"": nftables.Planner{}.Base(fuzzNode)}
	for _, s := range services {
		parts[OwnerOf(s)] = nftables.Planner{}.Plan(fuzzNode, s)
	}
	p := modesPlan{table: nft.Union(parts), ipt: iptproxy.Planner{}.All(fuzzNode, services)}
	p.listeners = userspace.AllListeners(fuzzNode, services, nil)
	ports := userspace.Ports{}
	for i := range p.listeners {
		l := &p.listeners[i]
		l.Addr = netip.AddrPortFrom(l.Addr.Addr(), uint16(61000+i))
		ports[l.Key()] = l.Addr.Port()
	}
	p.user = userspace.AllRules(fuzzNode, services, ports)
	return p
}

// FuzzModes plans random services in all modes, from the API's objects on. Nothing panics; the plan of all is what the plans of each make, in
// whatever order they come and go; what is printed is read back; the kernel takes it; and explain finds the same endpoints in every mode.
func FuzzModes(f *testing.F) {
	for seed := range uint64(12) {
		f.Add(seed, byte(1+seed%6), seed%2 == 0, seed%6 == 1)
	}
	f.Fuzz(func(t *testing.T, seed uint64, n byte, hostile, kernel bool) {
		d := dealer{rand.New(rand.NewPCG(seed, uint64(n))), hostile}
		services := d.services(int(n % 8))
		plan := planModes(services)
		agree(t, plan, services)
		printed(t, plan)
		incremental(t, d, services, plan.table)
		if kernel {
			programmed(t, plan)
		}
	})
}

// incremental brings another set of services to this one in steps.
func incremental(t *testing.T, d dealer, services []api.ServicePort, want nft.Table) {
	t.Helper()
	m := nft.NewMerge(nft.INet, nft.TableName)
	have := nft.Apply(nil, m.Set("", nftables.Planner{}.Base(fuzzNode))...)
	for range 3 {
		parts := map[string]nft.Table{}
		for _, owner := range m.Owners() {
			if owner != "" && d.IntN(2) == 0 {
				parts[owner] = nft.New()
			}
		}
		for _, s := range d.services(d.IntN(8)) {
			parts[OwnerOf(s)] = nftables.Planner{}.Plan(fuzzNode, s)
		}
		have = nft.Apply(have, m.Update(parts)...)
	}
	parts := map[string]nft.Table{}
	for _, owner := range m.Owners() {
		if owner != "" {
			parts[owner] = nft.New()
		}
	}
	for _, s := range services {
		parts[OwnerOf(s)] = nftables.Planner{}.Plan(fuzzNode, s)
	}
	have = nft.Apply(have, m.Update(parts)...)
	if ops := nft.Diff(want, have); len(ops) > 0 {
		t.Errorf("steps led elsewhere: left to do is %v", ops)
	}
}

func printed(t *testing.T, plan modesPlan) {
	t.Helper()
	if read, err := nft.ParseTable(plan.table.String()); err != nil || len(nft.Diff(plan.table, &read)) > 0 {
		t.Errorf("table reads back otherwise: %v", err)
	}
	for _, rules := range []xt.Ruleset{plan.ipt, plan.user} {
		for _, v6 := range []bool{false, true} {
			tables := *rules.Family(v6)
			if read, err := xt.Parse(tables.String()); err != nil || read.String() != tables.String() {
				t.Errorf("%v: reads back as\n%s\nwas\n%s", err, read, tables)
			}
		}
	}
}

// programmed gives the plans to the kernel, in the test's own namespace, and to the relay.
func programmed(t *testing.T, plan modesPlan) {
	t.Helper()
	netns.Need(t)
	lock, err := os.Create("/run/fuzz.lock") // the fuzzer's workers share the namespace
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	c, err := kernelnft.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	have, err := c.Read(nft.INet, nft.TableName)
	if err == nil {
		err = c.Apply(nft.Diff(plan.table, have))
	}
	if err != nil {
		t.Errorf("the kernel refuses the table: %v\n%s", err, plan.table)
	}
	if have, err = c.Read(nft.INet, nft.TableName); err != nil || len(nft.Diff(plan.table, have)) > 0 {
		t.Errorf("the kernel holds another table: %v, %v", err, nft.Diff(plan.table, have))
	}
	for _, rules := range []xt.Ruleset{plan.ipt, plan.user} {
		for _, v6 := range []bool{false, true} {
			program := "iptables-nft-restore"
			if v6 {
				program = "ip6tables-nft-restore"
			}
			cmd := exec.Command(program, "--noflush", "--test")
			input := xt.RestoreInput(xt.Diff(rules, xt.Ruleset{}), v6)
			cmd.Stdin = strings.NewReader(input)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%s: %v\n%s\n%s", program, err, out, input)
			}
		}
	}
	r := relay.New(relay.Options{})
	defer r.Close()
	if ports, err := r.Apply(plan.listeners); err != nil || len(ports) != len(plan.listeners) {
		t.Errorf("the relay opens %d of %d listeners: %v", len(ports), len(plan.listeners), err)
	}
}

// agree sends packets to all addresses of the services, from a pod, from outside and from the node, and compares what the modes make of them.
func agree(t *testing.T, plan modesPlan, services []api.ServicePort) {
	t.Helper()
	modes := []struct {
		name  string
		rules explain.Rules
	}{
		{"nftables", explain.NFTables{Table: plan.table, Local: fuzzLocal}},
		{"iptables", explain.IPTables{Rules: plan.ipt, Local: fuzzLocal}},
		{"userspace", explain.IPTables{Rules: plan.user, Local: fuzzLocal}},
	}
	clients := map[bool][]string{
		false: {"172.16.1.3", "172.16.2.9", "203.0.113.7", "10.7.7.7", "172.17.42.31"},
		true:  {"fd00:16:1::3", "2001:db8:2::7", "2001:db8:3::1", "fd00:17::31"},
	}
	for _, s := range services {
		for _, to := range frontendsOf(s) {
			for _, client := range clients[to.Addr().Is6()] {
				flow := packet.Flow{
					Proto: strings.ToLower(string(s.Protocol)), Src: netip.AddrPortFrom(netip.MustParseAddr(client), 40000), Dst: to,
				}
				var first answer
				for i, m := range modes {
					got := answerOf(m.rules, plan.listeners, flow)
					switch {
					case i == 0:
						first = got
					case m.name == "userspace" && s.Protocol == api.SCTP: // rejected, as its page says
					case !got.within(first, s.Balance):
						t.Errorf("%s -> %s %s: nftables says %s, %s says %s\n%+v", client, flow.Proto, to, first, m.name, got, s)
					}
				}
			}
		}
	}
}

// frontendsOf are the addresses that clients use.
func frontendsOf(s api.ServicePort) []netip.AddrPort {
	var out []netip.AddrPort
	for _, a := range slices.Concat(s.ClusterIPs, s.External) {
		out = append(out, netip.AddrPortFrom(a, s.Port))
	}
	for _, l := range s.LoadBalancer {
		out = append(out, netip.AddrPortFrom(l.Addr(), s.Port))
	}
	for _, a := range fuzzNode.Addresses {
		if s.NodePort != 0 && proxy.HasFamily(s, a.Is6()) {
			out = append(out, netip.AddrPortFrom(a, s.NodePort))
		}
	}
	return out
}

// answer is what becomes of a packet: the endpoints it may get to, or none and whether it passes.
type answer struct {
	to      []netip.AddrPort
	refused bool
}

func (a answer) String() string {
	if len(a.to) > 0 {
		return fmt.Sprint(a.to)
	}
	if a.refused {
		return "refused"
	}
	return "passes"
}

// within reports whether the answers are the same; where one mode hashes the client, the endpoint must be one of the other's.
func (a answer) within(first answer, b api.Balance) bool {
	if b == api.Maglev && len(first.to) == 1 && len(a.to) > 0 {
		return slices.Contains(a.to, first.to[0])
	}
	return slices.Equal(a.to, first.to) && a.refused == first.refused
}

func answerOf(rules explain.Rules, listeners []netstate.Listener, f packet.Flow) answer {
	p := explain.Packet{Flow: f, In: "eth0"}
	hooks := []explain.Hook{explain.Prerouting, explain.Forward}
	if fuzzLocal(f.Dst.Addr()) {
		hooks[1] = explain.Input
	}
	if fuzzLocal(f.Src.Addr()) {
		p.In, hooks = "", []explain.Hook{explain.Output}
	}
	var a answer
	for _, hook := range hooks {
		a.collect(rules.Eval(hook, p), listeners, f)
		if len(a.to) > 0 || a.refused {
			break
		}
	}
	slices.SortFunc(a.to, netip.AddrPort.Compare)
	a.to = slices.Compact(a.to)
	return a
}

func (a *answer) collect(outcomes []explain.Outcome, listeners []netstate.Listener, f packet.Flow) {
	for _, o := range outcomes {
		switch o.Action {
		case explain.Drop, explain.Reject:
			a.refused = true
		case explain.DNAT, explain.Redirect:
			for _, to := range o.To {
				a.to = append(a.to, served(to, listeners, f)...)
			}
		case explain.OneOf:
			for _, alternative := range o.Alternatives {
				a.collect(alternative, listeners, f)
			}
		}
	}
}

// served are the endpoints of the listener that a packet is sent to, or the endpoint itself.
func served(to netip.AddrPort, listeners []netstate.Listener, f packet.Flow) []netip.AddrPort {
	for _, l := range listeners {
		if l.Addr.Port() != to.Port() || !strings.EqualFold(l.Protocol, f.Proto) {
			continue
		}
		var out []netip.AddrPort
		for _, e := range l.Endpoints {
			if e.Addr().Is6() == f.Dst.Addr().Is6() {
				out = append(out, e)
			}
		}
		return out
	}
	return []netip.AddrPort{to}
}

// TestModesAgree is a part of the fuzzer's work that every run does.
func TestModesAgree(t *testing.T) {
	for seed := range uint64(80) {
		d := dealer{rand.New(rand.NewPCG(seed, 7)), seed%3 == 0}
		services := d.services(1 + int(seed%7))
		plan := planModes(services)
		agree(t, plan, services)
		printed(t, plan)
		incremental(t, d, services, plan.table)
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}
