package nft_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"weft/internal/kernel/netns"
	"weft/internal/nft"
	"weft/internal/overlay/edge"
)

// TestOthersWithTheTunnelsPort: masquerading chooses any port for a flow, a tunnel's too, and a service may have it. Such packets are tracked and
// translated, whatever is done with the tunnel's own.
func TestOthersWithTheTunnelsPort(t *testing.T) {
	c := open(t)
	ns := edgeWire(t)
	pod, err := netns.New("/run/netns/pod")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = pod.Close() })
	run(t, `ip link add vp type veth peer name eth0 netns pod; ip addr add 10.9.0.1/24 dev vp; ip link set vp up; ip -n pod link set eth0 up
		ip -n pod addr add 10.9.0.2/24 dev eth0; ip -n pod route add default via 10.9.0.1
		ip -n underlay route add 10.9.0.0/24 via 192.0.2.1; sysctl -qw net.ipv4.ip_forward=1`)
	t.Cleanup(func() { run(t, "sysctl -qw net.ipv4.ip_forward=0; ip link del vp") })
	members := edgeMembers()
	off := edgeConfig(members)
	off.Check = false
	for i, x := range []struct {
		name    string
		cfg     edge.Config
		members []edge.Member
	}{{"checked VXLAN", edgeConfig(members), members}, {"VXLAN", off, members}, {"WireGuard", edge.Config{Untracked: []uint16{51820, edgePort}}, nil}} {
		t.Run(x.name, func(t *testing.T) {
			masqueraded, service := 5000+2*i, 5001+2*i // what was tracked is remembered
			echo(t, ns, fmt.Sprintf("192.0.2.9:%d", masqueraded))
			echo(t, ns, fmt.Sprintf("192.0.2.9:%d", service))
			parts := map[string]nft.Table{"": edge.Rules(x.cfg)}
			for i, m := range x.members {
				parts[fmt.Sprint(i)] = edge.Elements(m)
			}
			program(t, c, nft.Union(parts))
			run(t, fmt.Sprintf(`nft 'table ip others {
				chain pre { type nat hook prerouting priority dstnat; ip daddr 198.51.100.7 udp dport %[1]d dnat to 192.0.2.9:%[2]d; }
				chain out { type nat hook output priority -100; ip daddr 198.51.100.7 udp dport %[1]d dnat to 192.0.2.9:%[2]d; }
				chain post { type nat hook postrouting priority srcnat; ip saddr 10.9.0.0/24 udp dport %[3]d masquerade to :%[1]d; }
			}'`, edgePort, service, masqueraded))
			defer run(t, "nft delete table ip others; ip route flush table main proto 99")
			run(t, "ip route add 198.51.100.7 via 192.0.2.9 proto 99")
			if err := pod.Do(func() error { return asked(fmt.Sprintf("192.0.2.9:%d", masqueraded)) }); err != nil {
				t.Errorf("a masqueraded flow with the port: %v", err)
			}
			if err := pod.Do(func() error { return asked(fmt.Sprintf("198.51.100.7:%d", edgePort)) }); err != nil {
				t.Errorf("a service with the port, from a pod: %v", err)
			}
			if err := asked(fmt.Sprintf("198.51.100.7:%d", edgePort)); err != nil {
				t.Errorf("a service with the port, from the node: %v", err)
			}
		})
	}
}

// echo answers datagrams.
func echo(t *testing.T, ns *netns.NS, addr string) {
	t.Helper()
	err := ns.Do(func() error {
		u, err := net.ListenPacket("udp4", addr)
		if err != nil {
			return err
		}
		t.Cleanup(func() { _ = u.Close() })
		go func() {
			b := make([]byte, 100)
			for {
				n, from, err := u.ReadFrom(b)
				if err != nil {
					return
				}
				_, _ = u.WriteTo(b[:n], from)
			}
		}()
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// asked sends datagrams until one is answered, for two seconds; the first may wait for a neighbour.
func asked(to string) error {
	c, err := net.Dial("udp4", to)
	if err != nil {
		return err
	}
	defer c.Close()
	for range 10 {
		if _, err := io.WriteString(c, "who is there"); err != nil {
			return err
		}
		if err := c.SetReadDeadline(time.Now().Add(200 * time.Millisecond)); err != nil {
			return err
		}
		if _, err = c.Read(make([]byte, 100)); err == nil || !errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
	}
	return errors.New("no answer")
}

// TestTunnelsAreNotTracked: neither what comes from members nor what is sent to them.
func TestTunnelsAreNotTracked(t *testing.T) {
	c := open(t)
	ns := edgeWire(t)
	members := edgeMembers()
	off := edgeConfig(members)
	off.Check = false
	good := frame{1, ip4, "172.16.28.7", 0}.bytes()
	for _, x := range []struct {
		name    string
		cfg     edge.Config
		members []edge.Member
		from    int // source port
	}{{"checked VXLAN", edgeConfig(members), members, 40000}, {"VXLAN", off, members, 40000}, {"WireGuard", edge.Config{Untracked: []uint16{edgePort}}, nil, edgePort}} {
		t.Run(x.name, func(t *testing.T) {
			parts := map[string]nft.Table{"": edge.Rules(x.cfg)}
			for i, m := range x.members {
				parts[fmt.Sprint(i)] = edge.Elements(m)
			}
			program(t, c, nft.Union(parts))
			run(t, fmt.Sprintf(`nft 'table ip others {
				chain in { type filter hook input priority 0; udp dport %[1]d ct state untracked counter comment "in"; }
				chain out { type filter hook output priority 0; udp dport %[1]d ct state untracked counter comment "out"; }
			}'`, edgePort))
			defer run(t, "nft delete table ip others")
			send := func(from, to string) func() error {
				return func() error {
					d := net.Dialer{LocalAddr: &net.UDPAddr{IP: net.ParseIP(from), Port: x.from}}
					conn, err := d.Dial("udp4", net.JoinHostPort(to, fmt.Sprint(edgePort)))
					if err != nil {
						return err
					}
					defer conn.Close()
					_, err = conn.Write(good)
					return err
				}
			}
			if err := errors.Join(ns.Do(send("192.0.2.2", "192.0.2.1")), send("192.0.2.1", "192.0.2.2")()); err != nil {
				t.Fatal(err)
			}
			var out []byte
			for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
				if out, _ = exec.Command("nft", "list", "table", "ip", "others").Output(); strings.Count(string(out), "counter packets 1 ") == 2 {
					return
				}
			}
			t.Errorf("not one packet each way that is not tracked:\n%s", out)
		})
	}
}
