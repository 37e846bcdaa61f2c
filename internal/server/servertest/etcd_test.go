package servertest

import (
	"context"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"weft/internal/server/pki"
)

// articleFiles makes the certificates and tokens the article's command line names, by another authority than the server's.
func articleFiles(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	a, err := pki.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	names := pki.Names{DNS: []string{"kube-master"}, IPs: []netip.Addr{netip.MustParseAddr("10.254.0.1")}}
	if _, _, err := a.Serving("server", names); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "known_tokens.csv"), []byte("open-sesame,alice,1,system:masters\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

// debianEtcd starts the etcd of the distribution.
func debianEtcd(t *testing.T) string {
	t.Helper()
	path, err := exec.LookPath("etcd")
	if err != nil {
		t.Skip("needs etcd (Debian: etcd-server)")
	}
	const client, peer = "http://127.0.0.1:17041", "http://127.0.0.1:17042"
	cmd := exec.Command(path, "--data-dir", t.TempDir(), "--listen-client-urls", client, "--advertise-client-urls", client,
		"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", "default="+peer)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	return client
}

// weftEtcd is the etcd inside another weft-server, of the version the server embeds.
func weftEtcd(t *testing.T) string {
	t.Helper()
	s := newServer(t, "--secure-port=17051", "--listen-client-urls=http://127.0.0.1:17052", "--etcd-prefix=/other")
	s.start()
	return "http://127.0.0.1:17052"
}

// The article's command line, word for word but for paths and ports, on an external etcd old and new.
func TestArticleCommandLine(t *testing.T) {
	t.Parallel()
	for name, etcd := range map[string]func(*testing.T) string{"debian": debianEtcd, "current": weftEtcd} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			newServer(t) // the namespace
			port := map[string]string{"debian": "17060", "current": "17061"}[name]
			endpoint, files := etcd(t), articleFiles(t)
			s := newServer(t, strings.Fields(`--logtostderr=true --v=0 --etcd-servers=`+endpoint+` --insecure-bind-address=127.0.0.1
				--secure-port=`+port+` --allow-privileged=true --service-cluster-ip-range=10.254.0.0/16
				--admission-control=NamespaceLifecycle,NamespaceExists,LimitRanger,SecurityContextDeny,ServiceAccount,ResourceQuota
				--tls-cert-file=`+files+`/server.crt --tls-private-key-file=`+files+`/server.key --client-ca-file=`+files+`/ca.crt
				--token-auth-file=`+files+`/known_tokens.csv --service-account-key-file=`+files+`/server.crt`)...)
			s.start()
			checkWarnings(t, s)
			admin := s.client("admin.kubeconfig")
			if _, err := admin.CoreV1().ReplicationControllers("default").Create(within(t), controller(1), metav1.CreateOptions{}); err != nil {
				t.Fatal(err)
			}
			await(t, 10*time.Second, "pod", func() bool {
				list, err := admin.CoreV1().Pods("default").List(within(t), metav1.ListOptions{})
				return err == nil && len(list.Items) == 1
			})
			checkIdentities(t, "https://"+address+":"+port, files)
			if took := s.stop(); took > 20*time.Second {
				t.Errorf("stop took %v", took)
			}
			s.start()
			list, err := s.client("admin.kubeconfig").CoreV1().Pods("default").List(within(t), metav1.ListOptions{})
			if err != nil || len(list.Items) != 1 {
				t.Errorf("pods after restart: %v, %v", list, err)
			}
			s.stop()
		})
	}
}

// checkWarnings wants one line for each retired thing, and nothing else.
func checkWarnings(t *testing.T, s *server) {
	t.Helper()
	log := strings.Split(strings.TrimSpace(s.log.String()), "\n")
	if len(log) != 2 || !strings.Contains(log[0], "--insecure-bind-address is retired: there is no port without TLS") ||
		!strings.Contains(log[1], "SecurityContextDeny is gone since Kubernetes 1.30; PodSecurity is on instead") {
		t.Errorf("log:\n%s", s.log)
	}
}

// checkIdentities comes with the article's own credentials: its tokens, and a certificate of its authority.
func checkIdentities(t *testing.T, url, files string) {
	t.Helper()
	a, err := pki.Open(files)
	if err != nil {
		t.Fatal(err)
	}
	crt, key, err := a.Client("bob", "bob", "system:masters")
	if err != nil {
		t.Fatal(err)
	}
	tlsConfig := rest.TLSClientConfig{CAFile: filepath.Join(files, "ca.crt"), ServerName: "kube-master"}
	byToken := &rest.Config{Host: url, TLSClientConfig: tlsConfig, BearerToken: "open-sesame"}
	byCert := &rest.Config{Host: byToken.Host, TLSClientConfig: tlsConfig}
	byCert.CertFile, byCert.KeyFile = crt, key
	for name, cfg := range map[string]*rest.Config{"token": byToken, "certificate": byCert} {
		client, err := kubernetes.NewForConfig(cfg)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := client.CoreV1().Secrets("").List(context.Background(), metav1.ListOptions{}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
