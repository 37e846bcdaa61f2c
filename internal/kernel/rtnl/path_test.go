package rtnl_test

import (
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	"weft/internal/api"
	"weft/internal/attach"
	"weft/internal/netstate"
	"weft/internal/overlay"
	"weft/internal/overlay/hostgw"
	"weft/internal/overlay/l2"
	"weft/internal/overlay/vxlan"
)

// lan is two hosts on one underlay with two pods each.
type lan struct {
	hosts []*world
	self  []overlay.Self
	pods  [][]*world
	ips   [][][]netip.Addr // by host, pod, family
}

func newLAN(t *testing.T) *lan {
	t.Helper()
	l := &lan{hosts: underlay(t, netip.MustParsePrefix("172.17.42.31/16"), netip.MustParsePrefix("172.17.42.32/16"))}
	for i, w := range l.hosts {
		v6 := netip.MustParseAddr(fmt.Sprintf("fd17::3%d", i+1))
		w.ip(fmt.Sprintf("ip addr add %s/64 dev eth0 nodad", v6))
		l.self = append(l.self, overlay.Self{
			Lease: api.Lease{
				Subnet:   netip.MustParsePrefix([]string{"172.16.28.0/24", "172.16.78.0/24"}[i]),
				SubnetV6: netip.MustParsePrefix(fmt.Sprintf("fd10:%d::/64", i)),
				PublicIP: netip.MustParseAddr(fmt.Sprintf("172.17.42.3%d", i+1)), PublicIPv6: v6, VNI: 1,
				VTEPMAC: fmt.Sprintf("02:00:00:00:00:%02x", i), VTEPMACv6: fmt.Sprintf("02:00:00:00:06:%02x", i),
			},
			Dev: "eth0", MTU: 1500, Addr: netip.MustParseAddr(fmt.Sprintf("172.17.42.3%d", i+1)), AddrV6: v6,
			Connected: []netip.Prefix{netip.MustParsePrefix("172.17.0.0/16"), netip.MustParsePrefix("fd17::/64")},
		})
		l.pods = append(l.pods, []*world{newWorld(t), newWorld(t)})
		var ips [][]netip.Addr
		for p := range 2 {
			ips = append(ips, []netip.Addr{
				nth(l.self[i].Lease.Subnet, 5+p), nth(l.self[i].Lease.SubnetV6, 5+p),
			})
		}
		l.ips = append(l.ips, ips)
	}
	return l
}

func nth(p netip.Prefix, n int) netip.Addr {
	a := p.Addr()
	for range n {
		a = a.Next()
	}
	return a
}

// plan brings both hosts to the backend and attachment.
func (l *lan) plan(t *testing.T, b overlay.Backend, mode attach.Mode) {
	t.Helper()
	var leases []api.Lease
	for i := range l.self {
		l.self[i].Lease.BackendType = b.Name()
		leases = append(leases, l.self[i].Lease)
	}
	for i, w := range l.hosts {
		w.t = t
		var pods []attach.Pod
		for p, pod := range l.pods[i] {
			pods = append(pods, attach.Pod{UID: fmt.Sprint(i, p), Namespace: "default", Name: "p", IPs: l.ips[i][p], Netns: pod.ns.Path()})
		}
		config := attach.Config{
			Mode: mode, Bridge: "docker0", Subnet: l.self[i].Lease.Subnet, SubnetV6: l.self[i].Lease.SubnetV6, MTU: overlay.MTU(b, l.self[i]),
			IPv6: true, BridgeNetfilter: true,
		}
		host, in := attach.Plan(config, pods)
		want := netstate.Union(b.Plan(l.self[i], leases), host)
		w.converge(want)
		for p, pod := range l.pods[i] {
			pod.t = t
			pod.converge(in[pods[p].UID])
			pod.settled(in[pods[p].UID])
		}
		w.settled(want)
	}
}

// ask sends a datagram from one namespace to a server in another and returns the address that the server saw and the size that came back.
func ask(t *testing.T, from, to *world, server netip.Addr, size int) (seen netip.Addr, err error) {
	t.Helper()
	var listener net.PacketConn
	to.must(to.ns.Do(func() (err error) {
		listener, err = net.ListenPacket("udp", netip.AddrPortFrom(server, 7).String())
		return err
	}))
	defer listener.Close()
	got := make(chan netip.Addr, 1)
	go func() {
		buf := make([]byte, 9000)
		for {
			n, peer, err := listener.ReadFrom(buf)
			if err != nil {
				return
			}
			select {
			case got <- netip.MustParseAddrPort(peer.String()).Addr():
			default:
			}
			_, _ = listener.WriteTo(buf[:n], peer)
		}
	}()
	var conn net.Conn
	err = from.ns.Do(func() (err error) {
		conn, err = net.Dial("udp", netip.AddrPortFrom(server, 7).String())
		return err
	})
	if err != nil {
		return seen, err
	}
	defer conn.Close()
	n := 0
	for try := range 200 { // a datagram may be lost while carriers come up
		if _, err = conn.Write(make([]byte, size)); err != nil {
			return seen, err
		}
		_ = conn.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		if n, err = conn.Read(make([]byte, 9000)); err == nil {
			if try > 0 {
				t.Log("tries", try+1, conn.LocalAddr(), conn.RemoteAddr())
			}
			break
		}
	}
	if err != nil {
		return seen, err
	}
	if n != size {
		return seen, fmt.Errorf("%d bytes came back, want %d", n, size)
	}
	return <-got, nil
}

// TestPath sends packets between pods and hosts through every overlay and attachment, with both families, and then switches to the next
// while everything is in place.
func TestPath(t *testing.T) {
	l := newLAN(t)
	for _, c := range []struct {
		name   string
		b      overlay.Backend
		mode   attach.Mode
		direct bool
	}{
		{"vxlan routed", vxlan.Backend{}, attach.Routed, false},
		{"vxlan bridge", vxlan.Backend{}, attach.Bridge, false},
		{"host-gw bridge", hostgw.Backend{}, attach.Bridge, false},
		{"host-gw routed", hostgw.Backend{}, attach.Routed, false},
		{"vxlan direct routed", vxlan.Backend{}, attach.Routed, true},
		{"vxlan routed again", vxlan.Backend{}, attach.Routed, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			for i := range l.self {
				l.self[i].Options.DirectRouting = c.direct
			}
			l.plan(t, c.b, c.mode)
			for family := range 2 {
				header := []int{28, 48}[family]
				size := overlay.MTU(c.b, l.self[0]) - header // the largest datagram that needs no fragments
				src, dst, near := l.ips[0][0][family], l.ips[1][0][family], l.ips[0][1][family]
				if seen, err := ask(t, l.pods[0][0], l.pods[1][0], dst, size); err != nil || seen != src {
					t.Errorf("pod to pod elsewhere, family %d: seen from %s, want %s: %v", family, seen, src, err)
				}
				if seen, err := ask(t, l.pods[0][0], l.pods[0][1], near, size); err != nil || seen != src {
					t.Errorf("pod to pod near, family %d: seen from %s, want %s: %v", family, seen, src, err)
				}
				if _, err := ask(t, l.hosts[0], l.pods[1][0], dst, 100); err != nil {
					t.Errorf("host to pod elsewhere, family %d: %v", family, err)
				}
				if seen, err := ask(t, l.hosts[0], l.pods[0][0], src, 100); err != nil || seen != attach.Gateway(subnet(l.self[0], family)) {
					t.Errorf("host to own pod, family %d: seen from %s, want the gateway: %v", family, seen, err)
				}
			}
		})
	}
}

func subnet(s overlay.Self, family int) netip.Prefix {
	return []netip.Prefix{s.Lease.Subnet, s.Lease.SubnetV6}[family]
}

// TestPathL2 has the pods of both hosts in one Ethernet segment that the hosts are no part of.
func TestPathL2(t *testing.T) {
	l := newLAN(t)
	b := l2.Backend{Bridge: "docker0"}
	var leases []api.Lease
	for i := range l.self {
		l.self[i].Lease.BackendType, l.self[i].Lease.Node = l2.Name, fmt.Sprint("node", i)
		leases = append(leases, l.self[i].Lease)
		for p := range l.pods[i] {
			for _, ip := range l.ips[i][p] {
				b.Endpoints = append(b.Endpoints, l2.Endpoint{IP: ip, MAC: attach.MAC(l.ips[i][p][0]), Node: fmt.Sprint("node", i)})
			}
		}
	}
	for i, w := range l.hosts {
		var pods []attach.Pod
		for p, pod := range l.pods[i] {
			pods = append(pods, attach.Pod{UID: fmt.Sprint(i, p), IPs: l.ips[i][p], Netns: pod.ns.Path()})
		}
		host, in := attach.Plan(attach.Config{
			Mode: attach.L2, Bridge: "docker0", Subnet: l.self[i].Lease.Subnet, SubnetV6: l.self[i].Lease.SubnetV6, MTU: overlay.MTU(b, l.self[i]),
			Network: netip.MustParsePrefix("172.16.0.0/12"), NetworkV6: netip.MustParsePrefix("fd10::/24"), IPv6: true,
		}, pods)
		want := netstate.Union(b.Plan(l.self[i], leases), host)
		w.converge(want)
		w.settled(want)
		for p, pod := range l.pods[i] {
			pod.converge(in[pods[p].UID])
			pod.settled(in[pods[p].UID])
		}
	}
	for family := range 2 {
		src, dst, near := l.ips[0][0][family], l.ips[1][0][family], l.ips[0][1][family]
		size := overlay.MTU(b, l.self[0]) - []int{28, 48}[family]
		for _, to := range []struct {
			pod *world
			ip  netip.Addr
		}{{l.pods[1][0], dst}, {l.pods[0][1], near}} {
			if seen, err := ask(t, l.pods[0][0], to.pod, to.ip, size); err != nil || seen != src {
				t.Errorf("pod to pod %s: seen from %s, want %s: %v", to.ip, seen, src, err)
			}
		}
		if seen, err := ask(t, l.hosts[0], l.pods[0][0], src, 100); err == nil {
			t.Errorf("the host reached its pod %s, seen from %s", src, seen)
		}
	}
}

// TestPortFlap takes a pod's port down and up while packets are on their way: nobody may have to ask for the pod's or the gateway's
// Ethernet address then, as the kernel asks a second time only after a second.
func TestPortFlap(t *testing.T) {
	l := newLAN(t)
	l.plan(t, vxlan.Backend{}, attach.Bridge)
	host, pod := l.hosts[0], l.pods[0][0]
	veth := attach.HostInterface(fmt.Sprint(0, 0))
	for _, flap := range [][2]string{{"set " + veth + " down", "set " + veth + " up"}, {"set " + veth + " nomaster", "set " + veth + " master docker0"}} {
		host.ip("ip link " + flap[0])
		_, _ = ask(t, host, pod, l.ips[0][0][0], 100) // nobody answers: a question for an address would be open after it
		host.ip("ip link " + flap[1])
		l.plan(t, vxlan.Backend{}, attach.Bridge)
		for w, dev := range map[*world]string{host: "docker0", pod: attach.PodInterface} {
			var out []byte
			w.must(w.ns.Do(func() (err error) {
				out, err = exec.Command("ip", "-4", "neigh", "show", "dev", dev).CombinedOutput()
				return err
			}))
			if text := string(out); !strings.Contains(text, "PERMANENT") || strings.Contains(text, "INCOMPLETE") || strings.Contains(text, "FAILED") {
				t.Errorf("after link %s neighbours on %s are:\n%s", flap[0], dev, text)
			}
		}
		if _, err := ask(t, host, pod, l.ips[0][0][0], 100); err != nil {
			t.Error(err)
		}
	}
}
