package etcd

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"weft/internal/store/etcd/etcdtest"
)

// pki writes a CA and a certificate for loopback into dir.
func pki(t *testing.T, dir string) (ca, cert, key string) {
	t.Helper()
	caKey, leafKey := newKey(t), newKey(t)
	template := func(serial int64, isCA bool) *x509.Certificate {
		return &x509.Certificate{
			SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "root"}, NotBefore: time.Now().Add(-time.Hour),
			NotAfter: time.Now().Add(time.Hour), IsCA: isCA, BasicConstraintsValid: true,
			KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		}
	}
	root := template(1, true)
	rootDER, err := x509.CreateCertificate(rand.Reader, root, root, &caKey.PublicKey, caKey)
	if err != nil {
		t.Fatal(err)
	}
	leafDER, err := x509.CreateCertificate(rand.Reader, template(2, false), root, &leafKey.PublicKey, caKey)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalECPrivateKey(leafKey)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, kind string, der []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	return write("ca.pem", "CERTIFICATE", rootDER), write("cert.pem", "CERTIFICATE", leafDER), write("key.pem", "EC PRIVATE KEY", keyDER)
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestTLS(t *testing.T) {
	t.Parallel()
	ca, cert, key := pki(t, t.TempDir())
	server := etcdtest.StartTLS(t, "--cert-file", cert, "--key-file", key, "--trusted-ca-file", ca, "--client-cert-auth")
	full := Config{Endpoints: []string{server.URL}, CAFile: ca, CertFile: cert, KeyFile: key, Timeout: 5 * time.Second}
	c, err := Open(full)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	eventually(t, "etcd answers over TLS", func() bool { _, err := c.List(t.Context()); return err == nil })
	apply(t, c)
	k, _ := run(t, c, want(1))
	own(t, k)

	stranger, _, _ := pki(t, t.TempDir())
	full.CAFile = stranger
	bad, err := Open(full)
	if err != nil {
		t.Fatal(err)
	}
	defer bad.Close()
	if _, err := bad.List(t.Context()); err == nil || !strings.Contains(err.Error(), "certificate signed by unknown authority") {
		t.Errorf("stranger's authority: %v", err)
	}
}

func TestAuth(t *testing.T) {
	t.Parallel()
	server := etcdtest.Start(t)
	apply(t, open(t, server))
	raw, ctx := server.Client(), t.Context()
	must := func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(raw.UserAdd(ctx, "root", "r"))
	must(raw.UserGrantRole(ctx, "root", "root"))
	for name, kind := range map[string]clientv3.PermissionType{
		"weft": clientv3.PermissionType(clientv3.PermReadWrite), "reader": clientv3.PermissionType(clientv3.PermRead),
	} {
		must(raw.RoleAdd(ctx, name))
		must(raw.RoleGrantPermission(ctx, name, prefix, clientv3.GetPrefixRangeEnd(prefix), kind))
		must(raw.UserAdd(ctx, name, name))
		must(raw.UserGrantRole(ctx, name, name))
	}
	must(raw.AuthEnable(ctx))

	as := func(user, password string) *Client {
		c, err := Open(Config{Endpoints: []string{server.URL}, Username: user, Password: password, Timeout: 5 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	k, _ := run(t, as("weft", "weft"), want(1))
	own(t, k)
	reader, _ := run(t, as("reader", "reader"), want(2))
	eventually(t, "the missing permission is said", func() bool {
		return strings.Contains(reader.Status().Problem, "permission denied: grant the user read and write of "+prefix)
	})
	eventually(t, "a reader still sees the others", func() bool { return len(reader.Peers()) == 1 })
	for text, c := range map[string]*Client{
		"authentication failed, invalid user ID or password: correct --etcd-username": as("weft", "wrong"),
		"authentication is on: give --etcd-username":                                  as("", ""),
	} {
		if _, err := c.List(ctx); err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("got %v, want %q", err, text)
		}
	}
}
