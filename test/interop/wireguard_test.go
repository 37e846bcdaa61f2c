package interop

import (
	"crypto/ecdh"
	"encoding/base64"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
)

// noDriver is what flanneld says where the kernel has no WireGuard. It has no other way.
const noDriver = "could not create wireguard interface: operation not supported"

// TestWireGuard runs flanneld and weft where the kernel has WireGuard. Where not, what each reads of the other's lease is all there is: a
// lease as flanneld writes it, with the peer that weft makes of it, and weft's own, which must look the same.
func TestWireGuard(t *testing.T) {
	t.Parallel()
	n := network{name: "wireguard", conf: `{"Network": "10.24.0.0/16", "Backend": {"Type": "wireguard"}}`}
	n.world = inLab(t)
	n.make()
	f, w := n.take(), n.take()
	f.run(flannel, "flanneld", "--iface=eth0", "--ip-masq", "--etcd-endpoints="+etcd, "--etcd-prefix="+n.prefix())
	works := false
	n.eventually("flanneld says whether it can", patient, func() error {
		log, err := os.ReadFile(f.LogFile(f.name, flannel))
		works = strings.Contains(string(log), "flannel is ready")
		if err == nil && !works && !strings.Contains(string(log), noDriver) {
			err = fmt.Errorf("%s", log)
		}
		return err
	})
	if works {
		n.ready(f)
		n.weft(w)
		n.withPod(f)
		n.withPod(w)
		n.both(f, w)
		return
	}
	t.Logf("flanneld: %s: only the leases are compared", noDriver)
	// A host that changes over keeps its key: weft takes the one in flannel's file, which flanneld made before it failed.
	private := f.must("cat /run/flannel/wgkey")
	w.must("mkdir -p /run/flannel; echo %s > /run/flannel/wgkey", private)
	n.weft(w)
	const key = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
	n.etcdctl("put", n.prefix()+"/subnets/10.24.200.0-24",
		`{"PublicIP":"`+f.addr.String()+`","PublicIPv6":null,"BackendType":"wireguard","BackendData":{"PublicKey":"`+key+`","Port":51999}}`)
	n.eventually("weft has the peer", patient, w.says("weft state",
		"tunnel 10.24.200.0/24 dev flannel-wg local 0.0.0.0:51820 remote "+f.addr.String()+":51999 peer "+key, "mtu 1420"))
	n.eventually("... and the way to it", patient, w.says("ip route show 10.24.200.0/24; ip link show flannel-wg", "dev flannel-wg", "mtu 1420"))

	own := n.etcdctl("get", "--print-value-only", n.prefix()+"/subnets/"+strings.Replace(w.subnet.String(), "/", "-", 1))
	want := `^\{"PublicIP":"` + regexp.QuoteMeta(w.addr.String()) +
		`","PublicIPv6":null,"BackendType":"wireguard","BackendData":\{"PublicKey":"` + regexp.QuoteMeta(publicKey(t, private)) + `","Port":51820\}\}$`
	if !regexp.MustCompile(want).MatchString(own) {
		t.Errorf("weft's lease:\n%s\nwant as flannel's:\n%s", own, want)
	}
}

// publicKey is the public one of a private key (RFC 7748), both in base64.
func publicKey(t *testing.T, private string) string {
	t.Helper()
	raw, err := base64.StdEncoding.DecodeString(private)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ecdh.X25519().NewPrivateKey(raw)
	if err != nil {
		t.Fatal(err)
	}
	return base64.StdEncoding.EncodeToString(key.PublicKey().Bytes())
}
