package proxy_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"weft/internal/api"
	"weft/internal/proxy"
)

// claiming is a service on port 80 with those cluster and external addresses.
func claiming(name, cluster string, external ...string) api.ServicePort {
	s := api.ServicePort{Name: api.ServicePortName{Namespace: "default", Name: name}, Protocol: api.TCP, Port: 80}
	s.ClusterIPs = []netip.Addr{netip.MustParseAddr(cluster)}
	for _, e := range external {
		s.External = append(s.External, netip.MustParseAddr(e))
	}
	return s
}

func TestShares(t *testing.T) {
	a := claiming("a", "10.254.0.1", "192.0.2.1", "192.0.2.2")
	b := claiming("b", "10.254.0.2", "192.0.2.1", "10.254.0.1", "192.0.2.3")
	c := claiming("c", "10.254.0.3", "192.0.2.1")
	c.Port = 81 // another port: no conflict
	d := claiming("d", "10.254.0.4")
	d.LoadBalancer = []netip.Prefix{netip.MustParsePrefix("192.0.2.2/32")}
	e, f := claiming("e", "10.254.0.5"), claiming("f", "10.254.0.6")
	e.NodePort, f.NodePort = 30080, 30080
	u := claiming("u", "10.254.0.7", "192.0.2.1")
	u.Protocol = api.UDP
	got, conflicts := proxy.Shares([]api.ServicePort{f, e, d, c, b, a, u})
	var text []string
	for _, s := range got {
		text = append(text, fmt.Sprintf("%s %v%v%v%d", s.Name.Name, s.ClusterIPs, s.External, s.LoadBalancer, s.NodePort))
	}
	for _, c := range conflicts {
		text = append(text, c.String())
	}
	want := `f [10.254.0.6][][]0
e [10.254.0.5][][]30080
d [10.254.0.4][][]0
c [10.254.0.3][192.0.2.1][]0
b [10.254.0.2][192.0.2.3][]0
a [10.254.0.1][192.0.2.1 192.0.2.2][]0
u [10.254.0.7][192.0.2.1][]0
service default/b: does not get address 10.254.0.1:80 (TCP): it is default/a:'s; give one of the two another
service default/b: does not get address 192.0.2.1:80 (TCP): it is default/a:'s; give one of the two another
service default/d: does not get address 192.0.2.2:80 (TCP): it is default/a:'s; give one of the two another
service default/f: does not get NodePort 30080 (TCP): it is default/e:'s; give one of the two another`
	if d := cmp.Diff(want, strings.Join(text, "\n")); d != "" {
		t.Error(d)
	}
}

// TestClaimsFollow changes services one by one: each gets what it would get when all were looked at anew, and every one whose share changed is
// named.
func TestClaimsFollow(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	random := func(name string) []api.ServicePort {
		if r.IntN(5) == 0 {
			return nil
		}
		s := claiming(name, fmt.Sprintf("10.254.0.%d", r.IntN(4)))
		for range r.IntN(3) {
			s.External = append(s.External, netip.AddrFrom4([4]byte{10, 254, 0, byte(r.IntN(8))}))
		}
		s.NodePort = uint16(r.IntN(2) * (30000 + r.IntN(2)))
		return []api.ServicePort{s}
	}
	var k proxy.Claims
	wanted, shares := map[string][]api.ServicePort{}, map[string]api.ServicePort{}
	for round := range 2000 {
		name := string(rune('a' + r.IntN(6)))
		next := random(name)
		touched := k.Set(wanted[name], next)
		wanted[name] = next
		var all []api.ServicePort
		for _, s := range wanted {
			all = append(all, s...)
		}
		want, conflicts := proxy.Shares(all)
		delete(shares, name)
		for _, w := range want {
			n := w.Name.Name
			if n == name || slices.Contains(touched, w.Name) {
				shares[n] = k.Share(wanted[n][0])
			}
			if d := cmp.Diff(w, shares[n], cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})); d != "" {
				t.Fatalf("round %d, after %s, touched %v: %s\n%s", round, name, touched, n, d)
			}
		}
		if !slices.Equal(conflicts, k.Conflicts()) {
			t.Fatalf("round %d: conflicts %v, want %v", round, k.Conflicts(), conflicts)
		}
	}
}
