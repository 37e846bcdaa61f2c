package lab_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"weft/internal/lab"
	"weft/internal/lab/topology"
)

// bin makes a directory of programs: a name and what the shell does under it. "$FAKE" is this test binary.
func bin(t *testing.T, programs map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	exe, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "fake"), exe, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, body := range programs {
		script := "#!/bin/sh\nFAKE=/weft/bin/fake\n" + body + "\n"
		if err := os.WriteFile(filepath.Join(dir, name), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// fakes are programs that behave towards the lab as the real ones do, without a cluster.
var fakes = map[string]string{
	"weft-server": `LAB_TEST_FAKE=server exec $FAKE "$@"`,
	"weft": `if [ "$1" = network ]; then cp "$4" /var/lib/applied; exit; fi
shift; LAB_TEST_FAKE=agent exec $FAKE "$@"`,
	"kubectl": `echo kubectl "$@"; cat /root/.kube/config | head -c 4`,
}

func TestCluster(t *testing.T) {
	t.Parallel()
	var progress strings.Builder
	l, err := lab.Up(t.Context(), topology.Walkthrough(), lab.Options{
		Name: "cluster", Attached: true, Bin: bin(t, fakes), Progress: &progress, Timeout: time.Minute,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := l.Down(); err != nil {
			t.Error(err)
		}
	}()
	for _, want := range []string{"3 hosts", "API ready at https://172.17.42.30:443", "kube-node2 Ready with subnet 172.16.78.0/24"} {
		if !strings.Contains(progress.String(), want) {
			t.Errorf("progress does not say %q:\n%s", want, &progress)
		}
	}
	if out, err := l.Kubectl(t.Context(), "get", "x"); err != nil || out != "kubectl get x\nclus" {
		t.Errorf("kubectl: %q %v", out, err)
	}
	if got := run(t, l, "kube-master", "cat /var/lib/applied"); !strings.Contains(got, `"172.16.0.0/12"`) {
		t.Errorf("net-conf: %s", got)
	}
	if got := run(t, l, "kube-node1", "cat /etc/weft/kubeconfig"); got != "node kube-node1" {
		t.Errorf("agent's credentials: %s", got)
	}
	server := strings.Join(one(t, l, "kube-master").Argv, " ")
	for _, want := range []string{"--allow-privileged=true", "--node-names=kube-node1,kube-node2", "--advertise-address=172.17.42.30"} {
		if !strings.Contains(server, want) {
			t.Errorf("server's flags lack %s: %s", want, server)
		}
	}
	restart(t, l)
	var table strings.Builder
	if err := l.Status(t.Context()).Print(&table, time.Now()); err != nil || !strings.Contains(table.String(), "172.16.28.0/24") {
		t.Errorf("status: %v\n%s", err, &table)
	}
}

func restart(t *testing.T, l *lab.Lab) {
	t.Helper()
	ctx := t.Context()
	if err := l.Restart(ctx, "kube-node1", lab.Agent, "--proxy-mode=nftables", "--new=1"); err != nil {
		t.Fatal(err)
	}
	s := one(t, l, "kube-node1")
	argv := strings.Join(s.Argv, " ")
	if s.Restarts != 1 || strings.Contains(argv, "userspace") || !strings.Contains(argv, "--proxy-mode=nftables") || !strings.HasSuffix(argv, " --new=1") {
		t.Errorf("after restart: %+v", s)
	}
	if err := l.Signal(ctx, "kube-master", lab.Server, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := l.WaitReady(ctx, "kube-master", lab.Server); err == nil || !strings.Contains(err.Error(), "ended (signal: killed)") {
		t.Errorf("a killed server is ready: %v", err)
	}
	if err := l.Start(ctx, "kube-master", lab.Server); err != nil {
		t.Fatal(err)
	}
	if err := l.WaitReady(ctx, "kube-master", lab.Server); err != nil {
		t.Error(err)
	}
}

// TestClusterFails has programs that fail in every step: the error says which, why and where, and nothing is left.
func TestClusterFails(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		program, body string
		want          []string
	}{
		"server ends": {
			"weft-server", "echo 'listen :443: address already in use' >&2; exit 1",
			[]string{"server on kube-master ended (exit status 1)", "address already in use", "kube-master-server.log"},
		},
		"server is silent": {
			"weft-server", "echo thinking; exec sleep 100",
			[]string{"wait for server on kube-master", "took too long", "thinking", "kube-master-server.log"},
		},
		"network is refused": {"weft", "echo 'no etcd' >&2; exit 1", []string{"write network configuration", "no etcd"}},
		"agent ends": {
			"weft", `[ "$1" = network ] && exit; echo 'no such flag' >&2; exit 2`,
			[]string{"agent on kube-node", "exit status 2", "no such flag"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			programs := map[string]string{c.program: c.body}
			for p, body := range fakes {
				if p != c.program {
					programs[p] = body
				}
			}
			label := strings.ReplaceAll(name, " ", "-")
			l, err := lab.Up(t.Context(), topology.Default(), lab.Options{
				Name: label, Attached: true, Bin: bin(t, programs), Timeout: 3 * time.Second,
			})
			if err == nil {
				t.Fatal("no error", l.Down())
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error lacks %q:\n%v", want, err)
				}
			}
			if _, err := lab.Open(label); !errors.Is(err, lab.ErrDown) {
				t.Errorf("left behind: %v", err)
			}
		})
	}
	_, err := lab.Up(t.Context(), topology.Default(), lab.Options{Name: "none", Bin: t.TempDir()})
	if err == nil || !strings.Contains(err.Error(), "weft, weft-server, kubectl: build with: make build") {
		t.Errorf("missing binaries: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := lab.Up(ctx, topology.HostsOnly(1), lab.Options{Name: "cancelled", HostsOnly: true}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// fakeMain is what the fake programs run.
func fakeMain(kind string) error {
	f := flag.NewFlagSet(kind, flag.ContinueOnError)
	f.SetOutput(io.Discard)
	values := map[string]*string{}
	for _, arg := range os.Args[1:] {
		name, _, _ := strings.Cut(strings.TrimLeft(arg, "-"), "=")
		values[name] = f.String(name, "", "")
	}
	if err := f.Parse(os.Args[1:]); err != nil {
		return err
	}
	if kind == "agent" {
		text := fmt.Sprintf("FLANNEL_SUBNET=%s\n", strings.Replace(*values["subnet"], ".0/", ".1/", 1))
		if err := errors.Join(os.MkdirAll("/run/flannel", 0o755), os.WriteFile("/run/flannel/subnet.env", []byte(text), 0o644)); err != nil {
			return err
		}
		return http.ListenAndServe("127.0.0.1:10256", http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	}
	dir := *values["data-dir"]
	if err := os.MkdirAll(dir+"/nodes", 0o700); err != nil {
		return err
	}
	for n := range strings.SplitSeq(*values["node-names"], ",") {
		if err := os.WriteFile(dir+"/nodes/"+n+".kubeconfig", []byte("node "+n), 0o600); err != nil {
			return err
		}
	}
	return fakeAPI(dir, net.ParseIP(*values["advertise-address"]), *values["secure-port"])
}

func fakeAPI(dir string, ip net.IP, port string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{ip}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		return err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	encode := func(kind string, b []byte) string {
		return base64.StdEncoding.EncodeToString(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: b}))
	}
	cert, secret := encode("CERTIFICATE", der), encode("PRIVATE KEY", keyDER)
	config := fmt.Sprintf("clusters:\n- cluster: {certificate-authority-data: %s}\nusers:\n- user: {client-certificate-data: %s, client-key-data: %s}\n",
		cert, cert, secret)
	if err := os.WriteFile(dir+"/admin.kubeconfig", []byte(config), 0o600); err != nil {
		return err
	}
	start := time.Now()
	mux := http.NewServeMux()
	mux.HandleFunc("/readyz", func(w http.ResponseWriter, q *http.Request) {
		if len(q.TLS.PeerCertificates) == 0 || time.Since(start) < 100*time.Millisecond {
			http.Error(w, "not yet", http.StatusInternalServerError)
		}
	})
	mux.HandleFunc("/api/v1/nodes/{name}", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `{"status":{"conditions":[{"type":"MemoryPressure","status":"False"},{"type":"Ready","status":"True"}]}}`)
	})
	pair := tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	srv := &http.Server{
		Addr: net.JoinHostPort("", port), Handler: mux,
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequestClientCert},
	}
	return srv.ListenAndServeTLS("", "")
}
