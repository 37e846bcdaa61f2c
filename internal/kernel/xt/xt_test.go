package xt_test

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"

	"weft/internal/api"
	"weft/internal/kernel/netns"
	kernelxt "weft/internal/kernel/xt"
	"weft/internal/masq"
	"weft/internal/proxy"
	"weft/internal/proxy/userspace"
	"weft/internal/xt"
)

func TestMain(m *testing.M) { os.Exit(netns.Main(m)) }

// foreign are rules of others that must live through everything.
const foreign = `*nat
:DOCKER - [0:0]
:KUBE-NODEPORTS - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A OUTPUT -m comment --comment "not ours" -j KUBE-NODEPORTS
-A DOCKER -i docker0 -j RETURN
-A POSTROUTING -s 10.99.0.0/24 ! -o docker0 -j MASQUERADE
COMMIT
*filter
:MINE - [0:0]
-A FORWARD -p tcp -m multiport --dports 80,443 -j MINE
-A MINE -m limit --limit 5/min -j LOG --log-prefix "mine: "
COMMIT
`

var node = proxy.Node{
	Name:         "kube-node1",
	Addresses:    []netip.Addr{netip.MustParseAddr("172.17.42.31"), netip.MustParseAddr("fd00:17::31")},
	ClusterCIDRs: []netip.Prefix{netip.MustParsePrefix("172.16.0.0/12"), netip.MustParsePrefix("fd00:16::/48")},
}

func plan(services int) xt.Ruleset {
	m := masq.XT(masq.Config{
		Mode:    masq.Outside,
		Network: netip.MustParsePrefix("172.16.0.0/12"), Subnet: netip.MustParsePrefix("172.16.28.0/24"),
		NetworkV6: netip.MustParsePrefix("fd00:16::/48"), SubnetV6: netip.MustParsePrefix("fd00:16:0:28::/64"),
		Underlay: []netip.Prefix{netip.MustParsePrefix("172.17.0.0/16")}, Forward: true,
	})
	var list []api.ServicePort
	ports := userspace.Ports{}
	for i := range services {
		s := api.ServicePort{
			Name:     api.ServicePortName{Namespace: "default", Name: "s" + string(rune('a'+i%26)) + strings.Repeat("x", i/26), Port: "http"},
			Protocol: api.TCP, Port: 8080,
			ClusterIPs: []netip.Addr{netip.AddrFrom4([4]byte{10, 254, byte(i >> 8), byte(i)}), netip.AddrFrom16([16]byte{0xfd, 15: byte(i)})},
		}
		if i%5 != 4 {
			s.Endpoints = []api.Endpoint{
				{Addr: netip.MustParseAddrPort("172.16.78.9:80"), Ready: true},
				{Addr: netip.MustParseAddrPort("[fd00:16::9]:80"), Ready: true},
			}
		}
		if i%7 == 3 {
			s.Protocol, s.NodePort = api.UDP, uint16(30000+i)
			s.External = []netip.Addr{netip.AddrFrom4([4]byte{192, 0, 2, byte(i)})}
		}
		list = append(list, s)
		for _, l := range userspace.Listeners(node, s, nil) {
			ports[l.Key()] = uint16(50000 + i)
		}
	}
	return xt.Union(m, userspace.AllRules(node, list, ports))
}

// sync brings the kernel to want and returns how many ops it took.
func sync(t *testing.T, k kernelxt.Kernel, want xt.Ruleset) int {
	t.Helper()
	have, err := k.Read(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	ops := xt.Diff(want, have)
	if err := k.Apply(context.Background(), ops); err != nil {
		t.Fatalf("%v\n%s%s", err, xt.RestoreInput(ops, false), xt.RestoreInput(ops, true))
	}
	return len(ops)
}

func sh(t *testing.T, script string) string {
	t.Helper()
	out, err := exec.Command("sh", "-c", script).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", script, err, out)
	}
	return string(out)
}

func TestSync(t *testing.T) {
	netns.Need(t)
	for _, variant := range []string{"nft", "legacy"} {
		t.Run(variant, func(t *testing.T) {
			k := kernelxt.Kernel{Variant: variant}
			save := func() string {
				return sh(t, "iptables-"+variant+"-save | sed /^#/d; ip6tables-"+variant+"-save | sed /^#/d")
			}
			restore := exec.Command("iptables-"+variant+"-restore", "--noflush")
			restore.Stdin = strings.NewReader(foreign)
			if out, err := restore.CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			sync(t, k, plan(3))
			sync(t, k, xt.Ruleset{}) // empty tables stay
			before := save()
			steal := []string{
				"-t nat -F KUBE-PORTALS-HOST",
				"-t nat -D KUBE-PORTALS-CONTAINER 2",
				"-t nat -D PREROUTING 1",
				"-t nat -F PREROUTING",
				"-t filter -I WEFT-FORWARD -j DROP",
				"-t nat -A WEFT-POSTROUTING -j RETURN",
			}
			for _, n := range []int{1, 40, 41, 38, 12, 0} {
				want := plan(n)
				if n == 0 {
					want = xt.Ruleset{}
				}
				if ops := sync(t, k, want); ops == 0 {
					t.Errorf("%d services: no ops", n)
				}
				have, err := k.Read(context.Background())
				if err != nil {
					t.Fatal(err)
				}
				for _, v6 := range []bool{false, true} {
					for _, table := range *want.Family(v6) {
						for _, c := range table.Chains {
							if !xt.Owned(c.Name) {
								continue
							}
							got := have.Family(v6).Chain(table.Name, c.Name)
							if got == nil || chainText(*got) != chainText(c) {
								t.Fatalf("%d services: chain %s is\n%v\nwant\n%v", n, c.Name, got, c)
							}
						}
					}
				}
				if ops := sync(t, k, want); ops != 0 {
					t.Errorf("%d services: second time %d ops, want 0", n, ops)
				}
				if n != 40 {
					continue
				}
				for _, cmd := range steal {
					sh(t, "iptables-"+variant+" "+cmd)
					if strings.HasSuffix(cmd, "-F PREROUTING") { // what others lost is theirs to put back
						sh(t, "iptables-"+variant+" -t nat -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER")
					}
					if ops := sync(t, k, want); ops == 0 {
						t.Errorf("after %q: no ops", cmd)
					}
					if ops := sync(t, k, want); ops != 0 {
						t.Errorf("after %q: second time %d ops", cmd, ops)
					}
				}
			}
			if after := save(); after != before {
				t.Errorf("rules of others changed:\nbefore\n%s\nafter\n%s", before, after)
			}
		})
	}
}

func chainText(c xt.Chain) string {
	return xt.Tables{{Name: "x", Chains: []xt.Chain{c}}}.String()
}

func TestRefused(t *testing.T) {
	netns.Need(t)
	k := kernelxt.Kernel{Variant: "nft"}
	var want xt.Ruleset
	want.V4.Add("nat", "PREROUTING", xt.Rule{Target: xt.Jump{Chain: "WEFT-A"}})
	want.V4.Add("nat", "WEFT-A")
	sync(t, k, want)
	want.V4.Add("nat", "WEFT-A",
		xt.Rule{Target: xt.Masquerade{}}, // not at this hook: the kernel says so
		xt.Rule{Match: []xt.Match{xt.Raw("-m nosuchmatch --x")}, Target: xt.Return},
		xt.Rule{Target: xt.Return})
	have, err := k.Read(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	err = k.Apply(context.Background(), xt.Diff(want, have))
	for _, text := range []string{
		"-A WEFT-A -j MASQUERADE: refused: RULE_APPEND failed (Invalid argument)",
		"-A WEFT-A -m nosuchmatch --x -j RETURN: refused: ",
	} {
		if err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("error %v\nwant %q", err, text)
		}
	}
	var refused *kernelxt.RefusedError
	if !errors.As(err, &refused) || refused.Op.Chain != "WEFT-A" || refused.Reason == "" {
		t.Errorf("no RefusedError in %v", err)
	}
	if have, err = k.Read(context.Background()); err != nil {
		t.Fatal(err)
	}
	if c := have.V4.Chain("nat", "WEFT-A"); c == nil || len(c.Rules) != 1 || c.Rules[0].Target != xt.Return {
		t.Errorf("the good rule was not applied: %v", c)
	}
	sync(t, k, xt.Ruleset{})
}

// TestLarge applies more than one netlink message holds in a user namespace.
func TestLarge(t *testing.T) {
	netns.Need(t)
	k := kernelxt.Kernel{Variant: "nft"}
	for _, want := range []xt.Ruleset{plan(500), {}} {
		if ops := sync(t, k, want); ops == 0 {
			t.Error("no ops")
		}
		if ops := sync(t, k, want); ops != 0 {
			t.Errorf("second time %d ops", ops)
		}
	}
}

func TestMissing(t *testing.T) {
	k := kernelxt.Kernel{Variant: "nosuch"}
	if r, err := k.Read(context.Background()); err != nil || len(r.V4)+len(r.V6) > 0 {
		t.Errorf("Read = %v, %v; want nothing", r, err)
	}
	err := k.Apply(context.Background(), []xt.Op{{Table: "nat", Chain: "WEFT-A"}})
	if !errors.Is(err, kernelxt.ErrMissing) || !strings.Contains(err.Error(), "iptables-nosuch-restore: not installed: install") {
		t.Errorf("error %v", err)
	}
}

func TestFake(t *testing.T) {
	var f kernelxt.Fake
	for _, n := range []int{3, 10, 0} {
		want := plan(n)
		for i, wantOps := range []bool{true, false} {
			have, err := f.Read(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			ops := xt.Diff(want, have)
			if (len(ops) > 0) != wantOps {
				t.Errorf("%d services, round %d: %d ops", n, i, len(ops))
			}
			if err := f.Apply(context.Background(), ops); err != nil {
				t.Fatal(err)
			}
		}
	}
}
