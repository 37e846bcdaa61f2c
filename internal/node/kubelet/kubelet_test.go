package kubelet

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/util/exec"

	"weft/internal/runtime"
)

// authority signs the test's certificates.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "ca"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{cert: cert, key: key, pem: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})}
}

// client signs a client certificate and returns it with its key, PEM.
func (a *authority) client(t *testing.T, name, group string) (cert, key []byte) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name, Organization: []string{group}},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.cert, &k.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})
}

// fakePods has one pod, ns/web, with the container c and its log at path; its exec echoes.
type fakePods struct {
	path  string
	alive atomic.Bool
}

func (f *fakePods) Log(namespace, pod, container string, previous bool) (Log, error) {
	if namespace+"/"+pod+"/"+container != "ns/web/c" {
		return Log{}, fmt.Errorf("container %s: %w", container, runtime.ErrNotFound)
	}
	if previous {
		return Log{}, fmt.Errorf("previous terminated container %q not found", container)
	}
	return Log{Path: f.path, Running: f.alive.Load}, nil
}

func (f *fakePods) Exec(_ context.Context, _, _, _ string, cmd []string, s runtime.Stream) (int, error) {
	if s.Stdin != nil {
		if _, err := io.CopyN(s.Stdout, s.Stdin, 3); err != nil { // a WebSocket of version 4 tells of no end
			return 0, err
		}
	}
	if s.Stderr != nil {
		fmt.Fprint(s.Stderr, "err")
	}
	if s.TTY {
		size := <-s.Resize
		fmt.Fprintf(s.Stdout, "%dx%d", size.Width, size.Height)
	}
	fmt.Fprint(s.Stdout, strings.Join(cmd, " "))
	if cmd[0] == "fail" {
		return 7, nil
	}
	return 0, nil
}

func (f *fakePods) Netns(string, string) (string, error) { return "", nil }
func (f *fakePods) List() []*corev1.Pod                  { return []*corev1.Pod{{}} }

// start serves f and returns the URL and the authority of its callers.
func start(t *testing.T, f *fakePods) (string, *authority) {
	t.Helper()
	ca := newAuthority(t)
	cert, err := LoadCert(t.TempDir(), "node", []netip.Addr{netip.MustParseAddr("127.0.0.1")}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(ca.cert)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- Serve(ctx, l, Config{
			Pods: f, Cert: cert, ClientCA: pool, Log: slog.New(slog.DiscardHandler),
			Access: func(_ context.Context, user string, _ []string, verb, sub string) (bool, error) {
				return user == "friend" && verb == "get" && sub == "proxy", nil
			},
		})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return "https://" + l.Addr().String(), ca
}

func fetch(t *testing.T, target string, ca *authority, name, group string) (int, string) {
	t.Helper()
	config := &tls.Config{InsecureSkipVerify: true}
	if ca != nil {
		c, k := ca.client(t, name, group)
		pair, err := tls.X509KeyPair(c, k)
		if err != nil {
			t.Fatal(err)
		}
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }
	}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: config, DisableKeepAlives: true}}
	answer, err := client.Get(target)
	if err != nil {
		return 0, err.Error()
	}
	defer answer.Body.Close()
	body, _ := io.ReadAll(answer.Body)
	return answer.StatusCode, strings.TrimSpace(string(body))
}

const someLog = `2026-01-01T00:00:01.000000001Z stdout F one
2026-01-01T00:00:02.000000001Z stderr P tw
2026-01-01T00:00:02.000000002Z stderr F o
no log line
2026-01-01T00:00:03Z stdout F 
2026-01-01T00:00:04Z stdout F four
`

func TestAccess(t *testing.T) {
	f := &fakePods{path: filepath.Join(t.TempDir(), "0.log")}
	if err := os.WriteFile(f.path, []byte(someLog), 0o600); err != nil {
		t.Fatal(err)
	}
	base, ca := start(t, f)
	logs := base + "/containerLogs/ns/web/c"
	for _, c := range []struct {
		name, url, user, group string
		ca                     *authority
		status                 int
	}{
		{"nobody", logs, "", "", nil, 401},
		{"nobody's health", base + "/healthz", "", "", nil, 401},
		{"another CA", logs, "friend", "system:masters", newAuthority(t), 0},
		{"stranger", logs, "system:node:other", "system:nodes", ca, 403},
		{"friend", logs, "friend", "", ca, 200},
		{"API server", logs, "kube-apiserver", "system:masters", ca, 200},
		{"no such container", base + "/containerLogs/ns/web/x", "friend", "", ca, 404},
		{"no previous run", logs + "?previous=true", "friend", "", ca, 400},
		{"bad option", logs + "?tailLines=-1", "friend", "", ca, 400},
		{"both sinces", logs + "?sinceSeconds=1&sinceTime=2026-01-01T00:00:00Z", "friend", "", ca, 400},
		{"pods", base + "/pods", "friend", "", ca, 200},
		{"exec without a command", base + "/exec/ns/web/c?output=1", "friend", "", ca, 400},
		{"attach with stdin", base + "/attach/ns/web/c?input=1", "friend", "", ca, 400},
	} {
		t.Run(c.name, func(t *testing.T) {
			if status, body := fetch(t, c.url, c.ca, c.user, c.group); status != c.status {
				t.Errorf("%d %s, want %d", status, body, c.status)
			}
		})
	}
}

func TestLogs(t *testing.T) {
	path := filepath.Join(t.TempDir(), "0.log")
	if err := os.WriteFile(path, []byte(someLog), 0o600); err != nil {
		t.Fatal(err)
	}
	for query, want := range map[string]string{
		"":                                 "one\ntwo\n\nfour\n",
		"tailLines=0":                      "",
		"tailLines=1":                      "four\n",
		"tailLines=3":                      "two\n\nfour\n",
		"tailLines=99":                     "one\ntwo\n\nfour\n",
		"sinceTime=2026-01-01T00:00:03Z":   "\nfour\n",
		"limitBytes=5":                     "one\nt",
		"timestamps=true&tailLines=3":      "2026-01-01T00:00:02.000000001Z two\n2026-01-01T00:00:03Z \n2026-01-01T00:00:04Z four\n",
		"sinceSeconds=60":                  "\nfour\n",
		"tailLines=2&limitBytes=3":         "\nfo",
		"follow=true&tailLines=1":          "four\n",
		"follow=false&previous=0&unused=1": "one\ntwo\n\nfour\n",
	} {
		q, err := url.ParseQuery(query)
		if err != nil {
			t.Fatal(err)
		}
		o, err := parseLogOptions(q, time.Date(2026, 1, 1, 0, 1, 3, 0, time.UTC))
		if err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		w := &limitWriter{to: &out, left: o.limit}
		err = copyLog(t.Context(), Log{Path: path, Running: func() bool { return false }}, o, sink{out: w, err: w})
		if err != nil && !errors.Is(err, errLimit) {
			t.Error(err)
		}
		if out.String() != want {
			t.Errorf("%s: %q, want %q", query, out.String(), want)
		}
	}
}

// TestTailOfManyLines: the window grows until it holds the lines.
func TestTailOfManyLines(t *testing.T) {
	path := filepath.Join(t.TempDir(), "0.log")
	var log bytes.Buffer
	for i := range 20000 {
		fmt.Fprintf(&log, "2026-01-01T00:00:01Z stdout F line %d\n", i)
	}
	if err := os.WriteFile(path, log.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, n := range []int64{1, 1000, 5000, 19999, 20000, 20001} {
		var out bytes.Buffer
		o := logOptions{tail: n, limit: -1}
		if err := copyLog(t.Context(), Log{Path: path, Running: func() bool { return false }}, o, sink{out: &out, err: &out}); err != nil {
			t.Fatal(err)
		}
		first, _, _ := strings.Cut(out.String(), "\n")
		if want := fmt.Sprintf("line %d", max(20000-n, 0)); first != want || int64(strings.Count(out.String(), "\n")) != min(n, 20000) {
			t.Errorf("tail %d begins with %q, want %q", n, first, want)
		}
	}
}

// lockedBuffer may be read while it is written.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// TestFollow: half a line waits, a rotated file is followed on, and the last words of the container are not lost.
func TestFollow(t *testing.T) {
	path := filepath.Join(t.TempDir(), "0.log")
	add := func(text string) {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if _, err := f.WriteString(text); err != nil {
			t.Fatal(err)
		}
	}
	var alive atomic.Bool
	alive.Store(true)
	var out lockedBuffer
	add("2026-01-01T00:00:01Z stdout F old\n")
	done := make(chan error, 1)
	go func() {
		done <- copyLog(context.Background(), Log{Path: path, Running: alive.Load}, logOptions{follow: true, tail: 0, limit: -1}, sink{out: &out, err: &out})
	}()
	wait := func(want string) {
		t.Helper()
		for deadline := time.Now().Add(30 * time.Second); out.String() != want; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("followed %q, want %q", out.String(), want)
			}
		}
	}
	time.Sleep(20 * time.Millisecond) // let it find the end
	add("2026-01-01T00:00:02Z stdout F one\n2026-01-01T00:00:02Z std")
	wait("one\n")
	add("out F two\n")
	wait("one\ntwo\n")
	add("2026-01-01T00:00:02Z stdout F last of the old file\n")
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	add("2026-01-01T00:00:03Z stdout F three\n")
	wait("one\ntwo\nlast of the old file\nthree\n")
	add("2026-01-01T00:00:04Z stderr F end\n")
	alive.Store(false)
	if err := <-done; err != nil {
		t.Error(err)
	}
	wait("one\ntwo\nlast of the old file\nthree\nend\n")
}

type oneSize struct{ sent bool }

func (o *oneSize) Next() *remotecommand.TerminalSize {
	if o.sent {
		return nil
	}
	o.sent = true
	return &remotecommand.TerminalSize{Width: 80, Height: 24}
}

// TestExec runs client-go's own clients, SPDY as kubectl's server proxies it and WebSocket.
func TestExec(t *testing.T) {
	base, ca := start(t, &fakePods{})
	cert, key := ca.client(t, "kube-apiserver", "system:masters")
	config := &rest.Config{Host: base, TLSClientConfig: rest.TLSClientConfig{Insecure: true, CertData: cert, KeyData: key}}
	for kind, connect := range map[string]func(*url.URL) (remotecommand.Executor, error){
		"SPDY": func(u *url.URL) (remotecommand.Executor, error) {
			return remotecommand.NewSPDYExecutor(config, "POST", u)
		},
		"WebSocket": func(u *url.URL) (remotecommand.Executor, error) {
			return remotecommand.NewWebSocketExecutorForProtocols(config, "GET", u.String(), "v4.channel.k8s.io")
		},
	} {
		run := func(query string, o remotecommand.StreamOptions) error {
			u, err := url.Parse(base + "/exec/ns/web/c?" + query)
			if err != nil {
				t.Fatal(err)
			}
			e, err := connect(u)
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			return e.StreamWithContext(ctx, o)
		}
		var out, errOut bytes.Buffer
		err := run("command=a&command=b+c&input=1&output=1&error=1", remotecommand.StreamOptions{Stdin: strings.NewReader("in "), Stdout: &out, Stderr: &errOut})
		if err != nil || out.String() != "in a b c" || errOut.String() != "err" {
			t.Errorf("%s: %v, out %q, err %q", kind, err, out.String(), errOut.String())
		}
		out.Reset()
		err = run("command=fail&output=1", remotecommand.StreamOptions{Stdout: &out})
		if code, _ := errors.AsType[exec.CodeExitError](err); code.Code != 7 {
			t.Errorf("%s: %v, want exit code 7", kind, err)
		}
		out.Reset()
		err = run("command=x&output=1&tty=1", remotecommand.StreamOptions{Stdout: &out, Tty: true, TerminalSizeQueue: &oneSize{}})
		if err != nil || out.String() != "80x24x" {
			t.Errorf("%s with terminal: %v, out %q", kind, err, out.String())
		}
	}
}

func TestCertIsKept(t *testing.T) {
	dir, now := filepath.Join(t.TempDir(), "pki"), time.Now()
	load := func(now time.Time, addrs ...string) string {
		t.Helper()
		var list []netip.Addr
		for _, a := range addrs {
			list = append(list, netip.MustParseAddr(a))
		}
		c, err := LoadCert(dir, "node", list, now)
		if err != nil {
			t.Fatal(err)
		}
		return string(c.Certificate[0])
	}
	first := load(now, "172.17.42.31")
	if info, err := os.Stat(filepath.Join(dir, "kubelet.pem")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("key file: %v %v", info, err)
	}
	if load(now, "172.17.42.31") != first {
		t.Error("certificate not kept")
	}
	if load(now, "172.17.42.99") == first {
		t.Error("certificate kept though the address changed")
	}
	second := load(now, "172.17.42.99")
	if load(now.Add(certLife-time.Hour), "172.17.42.99") == second {
		t.Error("certificate kept to its end")
	}
}

func FuzzParseEntry(f *testing.F) {
	for line := range strings.SplitSeq(someLog, "\n") {
		f.Add([]byte(line))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		e, ok := parseEntry(line)
		if ok && (e.stream != "stdout" && e.stream != "stderr" || !bytes.HasPrefix(line, e.stamp) || !bytes.HasSuffix(line, e.text)) {
			t.Errorf("entry %+v of %q", e, line)
		}
	})
}
