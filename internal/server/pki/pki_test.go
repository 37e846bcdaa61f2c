package pki

import (
	"bytes"
	"crypto/x509"
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func open(t *testing.T, dir string) *Authority {
	t.Helper()
	a, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func leaf(t *testing.T, file string) *x509.Certificate {
	t.Helper()
	certs, err := ReadCertificates(file)
	if err != nil {
		t.Fatal(err)
	}
	return certs[0]
}

// Everything is made once, with mode 0600, and is the same at the next start.
func TestKeptOverRestart(t *testing.T) {
	dir := t.TempDir()
	names := Names{DNS: []string{"kubernetes", "kube-master"}, IPs: []netip.Addr{netip.MustParseAddr("10.254.0.1")}}
	make := func() map[string]string {
		a := open(t, dir)
		if _, _, err := a.Serving("server", names); err != nil {
			t.Fatal(err)
		}
		if _, _, err := a.Client("kubelet-client", "someone", "system:masters"); err != nil {
			t.Fatal(err)
		}
		if _, err := SigningKey(dir); err != nil {
			t.Fatal(err)
		}
		if err := a.Kubeconfig(filepath.Join(dir, "admin.kubeconfig"), Cluster{Server: "https://h:1", CA: a.PEM}, "admin", "system:masters"); err != nil {
			t.Fatal(err)
		}
		if _, err := a.NodeKubeconfig(dir, "n1", Cluster{Server: "https://h:1", CA: a.PEM}); err != nil {
			t.Fatal(err)
		}
		got := map[string]string{}
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			data, err := os.ReadFile(filepath.Join(dir, e.Name()))
			if err != nil {
				t.Fatal(err)
			}
			got[e.Name()] = string(data)
			if info, _ := e.Info(); info.Mode().Perm() != 0o600 {
				t.Errorf("%s has mode %v", e.Name(), info.Mode())
			}
		}
		return got
	}
	before, after := make(), make()
	if len(before) != 9 {
		t.Errorf("want 9 files, have %d", len(before))
	}
	for name := range before {
		if before[name] != after[name] {
			t.Errorf("%s changed over the restart", name)
		}
	}
}

func TestServing(t *testing.T) {
	dir := t.TempDir()
	a := open(t, dir)
	ip := netip.MustParseAddr("172.17.42.30")
	crt, _, err := a.Serving("server", Names{DNS: []string{"kube-master"}, IPs: []netip.Addr{ip}})
	if err != nil {
		t.Fatal(err)
	}
	first := leaf(t, crt)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(a.PEM)
	for _, name := range []string{"kube-master", "172.17.42.30"} {
		if _, err := first.Verify(x509.VerifyOptions{DNSName: name, Roots: roots}); err != nil {
			t.Errorf("verify as %s: %v", name, err)
		}
	}
	if _, err := first.Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err == nil {
		t.Error("a serving certificate passes for a client's")
	}
	// Another address: another certificate of the same authority.
	if _, _, err = a.Serving("server", Names{IPs: []netip.Addr{netip.MustParseAddr("172.17.42.99")}}); err != nil {
		t.Fatal(err)
	}
	if second := leaf(t, crt); second.Equal(first) || !a.Fits(second) {
		t.Error("a certificate without the new address was kept, or is of another authority")
	}
}

func TestExpiry(t *testing.T) {
	a := open(t, t.TempDir())
	cert, _, err := parsePair(must(t, a, leafLife))
	if err != nil || !a.Fits(cert) {
		t.Errorf("fresh certificate does not fit: %v", err)
	}
	if cert, _, _ = parsePair(must(t, a, renewBefore-time.Hour)); a.Fits(cert) {
		t.Error("a certificate near its end fits")
	}
	if cert, _, _ = parsePair(must(t, open(t, t.TempDir()), leafLife)); a.Fits(cert) {
		t.Error("a certificate of another authority fits")
	}
}

func must(t *testing.T, a *Authority, life time.Duration) Pair {
	t.Helper()
	pair, err := issue(clientTemplate("u", nil), a.Cert, a.key, life)
	if err != nil {
		t.Fatal(err)
	}
	return pair
}

// A lost key must not make a new authority: every node would be cut off.
func TestLostKey(t *testing.T) {
	for _, lost := range []string{"ca.key", "ca.crt"} {
		dir := t.TempDir()
		open(t, dir)
		if err := os.Remove(filepath.Join(dir, lost)); err != nil {
			t.Fatal(err)
		}
		_, err := Open(dir)
		if err == nil || !strings.Contains(err.Error(), lost) || strings.Contains(err.Error(), "\n") {
			t.Errorf("without %s: %v", lost, err)
		}
	}
}

func TestNotAnAuthority(t *testing.T) {
	dir := t.TempDir()
	a := open(t, dir)
	pair, err := a.NewClient("u")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(WriteFile(filepath.Join(dir, "ca.crt"), pair.Cert), WriteFile(filepath.Join(dir, "ca.key"), pair.Key)); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir); err == nil {
		t.Error("a client certificate was taken for an authority")
	}
}

func TestKubeconfig(t *testing.T) {
	dir := t.TempDir()
	a := open(t, dir)
	cluster := Cluster{Server: "https://172.17.42.30:6443", CA: a.PEM, TLSServerName: "kube-master"}
	file, err := a.NodeKubeconfig(dir, "kube-node1", cluster)
	if err != nil {
		t.Fatal(err)
	}
	got, err := ReadCluster(file)
	if err != nil || got.Server != cluster.Server || got.TLSServerName != cluster.TLSServerName || !bytes.Equal(got.CA, a.PEM) {
		t.Errorf("read back %+v, %v", got, err)
	}
	if !a.kubeconfigFits(file, cluster, "system:node:kube-node1") {
		t.Error("what was just written does not fit")
	}
	moved := cluster
	moved.Server = "https://172.17.42.99:6443"
	for what, fits := range map[string]bool{
		"another server": a.kubeconfigFits(file, moved, "system:node:kube-node1"),
		"another user":   a.kubeconfigFits(file, cluster, "system:node:kube-node2"),
		"no file":        a.kubeconfigFits(file+"x", cluster, "system:node:kube-node1"),
	} {
		if fits {
			t.Errorf("%s: fits", what)
		}
	}
	if err := os.WriteFile(file, []byte("::"), 0o600); err != nil {
		t.Fatal(err)
	}
	if a.kubeconfigFits(file, cluster, "system:node:kube-node1") {
		t.Error("garbage fits")
	}
}

func TestWriteFileLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "taken"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := WriteFile(filepath.Join(dir, "taken"), nil); err == nil {
		t.Error("wrote a file over a directory")
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 1 {
		t.Errorf("left behind: %v", entries)
	}
	if _, err := ReadCertificates(filepath.Join(dir, "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing file: %v", err)
	}
}
