package nft_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	"weft/internal/api"
	"weft/internal/maglev"
	"weft/internal/proxy"
)

// TestMaglevFlows connects from many addresses: the kernel must choose the endpoint that the table says, which mode userspace and explain
// use as well.
func TestMaglevFlows(t *testing.T) {
	c := newCluster(t)
	s := with(service(api.TCP, "a", "b"), func(s *api.ServicePort) { s.Balance = api.Maglev })
	c.set(t, s)
	got := map[string]int{}
	for i := 10; i < 40; i++ {
		for _, v6 := range []bool{false, true} {
			from := fmt.Sprintf("192.0.2.%d", i)
			if v6 {
				from = fmt.Sprintf("2001:db8::%d", i)
			}
			client := netip.MustParseAddr(from)
			list := proxy.Endpoints(c.node, s, v6, proxy.Cluster)
			want := "a"
			if e := maglev.Endpoint(client, list, nil); e == endpointOf(t, list, "b") {
				want = "b"
			}
			run(t, "ip -n outside addr add "+netip.PrefixFrom(client, client.BitLen()).String()+" dev eth0"+nodad(v6))
			answer := c.askFrom(t, "outside", from, netip.AddrPortFrom(vipOf(s, v6), s.Port))
			if host, _, _ := strings.Cut(answer, " "); host != want {
				t.Errorf("client %s: %s answered, want %s", from, host, want)
			}
			got[want]++
		}
	}
	if got["a"] < 10 || got["b"] < 10 {
		t.Errorf("60 clients: %v", got)
	}
	// nft(8) 1.0.6 crashes when it lists maps declared with jhash; ours are not.
	if out, err := exec.Command("nft", "list", "table", "inet", "weft").CombinedOutput(); err != nil ||
		!strings.Contains(string(out), "jhash ip saddr mod 1021 seed 0x77656674") {
		t.Errorf("nft list: %v\n%.2000s", err, out)
	}
}

func nodad(v6 bool) string {
	if v6 {
		return " nodad"
	}
	return ""
}

func vipOf(s api.ServicePort, v6 bool) netip.Addr {
	for _, a := range s.ClusterIPs {
		if a.Is6() == v6 {
			return a
		}
	}
	return netip.Addr{}
}

// endpointOf is the host's endpoint.
func endpointOf(t *testing.T, list []netip.AddrPort, host string) netip.AddrPort {
	t.Helper()
	for _, l := range links {
		for _, e := range list {
			if l.host == host && (e.Addr().String() == l.v4+".2" || e.Addr() == netip.MustParseAddr(l.v6+":2")) {
				return e
			}
		}
	}
	t.Fatalf("no endpoint of %s in %v", host, list)
	return netip.AddrPort{}
}

// askFrom connects from a source address and returns the answer.
func (c *cluster) askFrom(t *testing.T, host, from string, to netip.AddrPort) string {
	t.Helper()
	var answer string
	err := c.do(t, host, func() error {
		d := net.Dialer{Timeout: 30 * time.Second, LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
		conn, err := d.DialContext(context.Background(), "tcp", to.String())
		if err != nil {
			return err
		}
		defer conn.Close()
		b, err := io.ReadAll(conn)
		answer = string(b)
		return err
	})
	if err != nil {
		return err.Error()
	}
	return answer
}
