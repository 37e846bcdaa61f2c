package network

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	"weft/internal/api"
	"weft/internal/lease"
	"weft/internal/store/etcd"
	"weft/internal/store/etcd/etcdtest"
)

const (
	prefix  = "/coreos.com/network/"
	vxlan   = `{"Network":"172.16.0.0/12","Backend":{"Type":"vxlan"}}`
	hostGW  = `{"Network":"172.16.0.0/12","Backend":{"Type":"host-gw"}}`
	testMAC = "b2:69:2c:67:63:b8"
)

// told writes a host's lease.
func told(t *testing.T, c *clientv3.Client, i byte, own lease.Kind, also ...lease.Kind) {
	t.Helper()
	l := own.Of(api.Lease{Subnet: netip.PrefixFrom(netip.AddrFrom4([4]byte{172, 16, i, 0}), 24), PublicIP: netip.AddrFrom4([4]byte{172, 17, 42, i})})
	text, err := lease.Marshal(lease.Announce(l, also...))
	if err == nil {
		_, err = c.Put(t.Context(), prefix+"subnets/"+lease.Key(l), string(text))
	}
	if err != nil {
		t.Fatal(err)
	}
}

func stored(t *testing.T, c *clientv3.Client) (string, lease.Config) {
	t.Helper()
	r, err := c.Get(t.Context(), prefix+"config")
	if err != nil || len(r.Kvs) != 1 {
		t.Fatal(r, err)
	}
	config, _, err := lease.ParseConfig(r.Kvs[0].Value)
	if err != nil {
		t.Fatal(err)
	}
	return string(r.Kvs[0].Value), config
}

// TestPhases goes through a change with hosts that take their time: each call stops where they do, and the next one continues.
func TestPhases(t *testing.T) {
	t.Parallel()
	server := etcdtest.Start(t)
	at, raw := "--etcd-endpoints="+server.URL, server.Client()
	apply := func(config string, flags ...string) (string, string, error) {
		return weft(t, config, append([]string{"apply", at, "-f", "-", "--timeout", "200ms"}, flags...)...)
	}
	if _, _, err := apply(vxlan); err != nil {
		t.Fatal(err)
	}
	v, h := lease.Kind{Type: lease.VXLAN, VNI: 1, VTEPMAC: testMAC}, lease.Kind{Type: lease.HostGW}
	told(t, raw, 28, v)
	told(t, raw, 78, v)

	_, errs, err := apply(hostGW, "--dry-run")
	if err != nil || !strings.Contains(errs, "would prepare backend host-gw on 2 hosts") {
		t.Errorf("dry run: %q, %v", errs, err)
	}
	if text, _ := stored(t, raw); text != vxlan {
		t.Errorf("the dry run wrote %s", text)
	}
	_, _, err = apply(hostGW)
	if !errors.Is(err, errNotReady) || !strings.Contains(err.Error(), "172.17.42.28 (lease 172.16.28.0-24), 172.17.42.78") {
		t.Errorf("nobody is ready: %v", err)
	}
	_, c := stored(t, raw)
	if c.Backend.Type != lease.VXLAN || c.Next.Type != lease.HostGW || c.Change == "" {
		t.Fatalf("preparing: %+v", c)
	}
	h.Ready = c.Change
	told(t, raw, 28, v, h)
	told(t, raw, 78, v, lease.Kind{Type: lease.HostGW, Ready: "another"})
	if _, _, err = apply(hostGW); !errors.Is(err, errNotReady) || strings.Contains(err.Error(), ".28") {
		t.Errorf("one is ready for another change: %v", err)
	}
	out, _, err := weft(t, "", "show", at)
	if err != nil || !strings.Contains(out, "CHANGE   vxlan to host-gw, preparing: 1 of 2 hosts") || !strings.Contains(out, "waits for the others") {
		t.Errorf("show: %v\n%s", err, out)
	}
	told(t, raw, 78, v, h)
	if _, _, err = apply(hostGW); !errors.Is(err, errNotReady) || !strings.Contains(err.Error(), "leave backend vxlan") {
		t.Errorf("all are ready, nobody has taken it up: %v", err)
	}
	if _, c = stored(t, raw); c.Backend.Type != lease.HostGW || c.Previous.Type != lease.VXLAN || c.Change != h.Ready {
		t.Errorf("leaving: %+v", c)
	}
	left := v
	left.Ready = c.Change
	told(t, raw, 28, lease.Kind{Type: lease.HostGW}, left)
	told(t, raw, 78, lease.Kind{Type: lease.HostGW}, left)
	if out, _, err := apply(hostGW); err != nil || out != prefix+"config configured\n" {
		t.Errorf("all have taken it up: %q, %v", out, err)
	}
	if text, _ := stored(t, raw); text != hostGW {
		t.Errorf("in the end: %s", text)
	}
}

// TestForceAndBack: --force goes on without hosts that do not follow; the old configuration undoes what was prepared.
func TestForceAndBack(t *testing.T) {
	t.Parallel()
	server := etcdtest.Start(t)
	at, raw := "--etcd-endpoints="+server.URL, server.Client()
	apply := func(config string, flags ...string) error {
		_, _, err := weft(t, config, append([]string{"apply", at, "-f", "-", "--timeout", "100ms"}, flags...)...)
		return err
	}
	if err := apply(vxlan); err != nil {
		t.Fatal(err)
	}
	told(t, raw, 28, lease.Kind{Type: lease.VXLAN, VNI: 1, VTEPMAC: testMAC})
	if err := apply(hostGW); !errors.Is(err, errNotReady) {
		t.Error(err)
	}
	if err := apply(vxlan); err != nil {
		t.Errorf("back: %v", err)
	}
	if text, _ := stored(t, raw); text != vxlan {
		t.Errorf("back: %s", text)
	}
	if err := apply(hostGW, "--force"); err != nil {
		t.Errorf("force: %v", err)
	}
	if text, _ := stored(t, raw); text != hostGW {
		t.Errorf("force: %s", text)
	}
	// What does not fit the hosts is refused before anything is prepared.
	if err := apply(`{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan"}}`); !errors.Is(err, etcd.ErrInUse) {
		t.Errorf("another network: %v", err)
	}
	if text, _ := stored(t, raw); text != hostGW {
		t.Errorf("refused, but wrote %s", text)
	}
}

// TestWireGuardPorts: another port is prepared as another backend is; where that can't be, each host changes by itself, and it is said.
func TestWireGuardPorts(t *testing.T) {
	t.Parallel()
	server := etcdtest.Start(t)
	at, raw := "--etcd-endpoints="+server.URL, server.Client()
	conf := func(options string) string {
		return `{"Network":"172.16.0.0/12","Backend":{"Type":"wireguard"` + options + `}}`
	}
	apply := func(config string, flags ...string) (string, error) {
		_, errs, err := weft(t, config, append([]string{"apply", at, "-f", "-", "--timeout", "100ms"}, flags...)...)
		return errs, err
	}
	if _, err := apply(conf("")); err != nil {
		t.Fatal(err)
	}
	own := lease.Kind{Type: lease.WireGuard, WGKey: "hRhLNbAzKmL8dVd5Kj7GQLBf6BsTO2zi2V0cBvBl7R8=", Port: 51820}
	told(t, raw, 28, own)
	if _, err := apply(conf(`,"ListenPort":7000`)); !errors.Is(err, errNotReady) {
		t.Errorf("another port is not prepared: %v", err)
	}
	_, c := stored(t, raw)
	if c.Next.ListenPort != 7000 || c.Backend.ListenPort != 51820 {
		t.Fatalf("preparing: %+v", c)
	}
	next := lease.Kind{Type: lease.WireGuard, WGKey: own.WGKey, Port: 7000, PortV6: 51821, Ready: c.Change}
	told(t, raw, 28, own, next)
	if _, err := apply(conf(`,"ListenPort":7000`)); !errors.Is(err, errNotReady) {
		t.Error(err)
	}
	if _, c = stored(t, raw); c.Backend.ListenPort != 7000 || c.Previous.ListenPort != 51820 {
		t.Errorf("in force: %+v", c)
	}
	if errs, err := apply(conf("")); !errors.Is(err, errNotReady) {
		t.Errorf("back: %v %s", err, errs)
	}
	if _, err := apply(conf(""), "--force"); err != nil {
		t.Error(err)
	}
	errs, err := apply(conf(`,"Mode":"auto"`))
	if err != nil || !strings.Contains(errs, "warning: each host changes by itself") || !strings.Contains(errs, "Backend.ListenPort: 51820") {
		t.Errorf("the mode without another port: %v, %q", err, errs)
	}
	if text, _ := stored(t, raw); text != conf(`,"Mode":"auto"`) {
		t.Errorf("in the end: %s", text)
	}
}

func TestRefusesBackends(t *testing.T) {
	for kind, want := range map[string]string{
		`"ipip"`: "use host-gw", `"alloc"`: "use host-gw", `"extension"`: "use one of vxlan", `"ipsec","PSK":"` + strings.Repeat("x", 96) + `"`: "use wireguard",
	} {
		_, _, err := weft(t, `{"Network":"10.5.0.0/16","Backend":{"Type":`+kind+`}}`, "apply", "-f", "-")
		if err == nil || !strings.Contains(err.Error(), "Backend.Type: ") || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", kind, err)
		}
	}
}
