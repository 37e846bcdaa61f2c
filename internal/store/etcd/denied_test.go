package etcd

import (
	"errors"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"weft/internal/store/etcd/etcdtest"
)

// TestTLSDenied: each way in which two ends do not trust each other is one line that names the flag, and is told apart from an etcd that
// is not there yet.
func TestTLSDenied(t *testing.T) {
	t.Parallel()
	ca, cert, key := pki(t, t.TempDir())
	strangerCA, strangerCert, strangerKey := pki(t, t.TempDir())
	mutual := etcdtest.StartTLS(t, "--cert-file", cert, "--key-file", key, "--trusted-ca-file", ca, "--client-cert-auth")
	simple := etcdtest.StartTLS(t, "--cert-file", cert, "--key-file", key)
	plain := etcdtest.Start(t)
	for _, c := range []Config{
		{Endpoints: []string{mutual.URL}, CAFile: ca, CertFile: cert, KeyFile: key},
		{Endpoints: []string{simple.URL}, CAFile: ca},
	} {
		good, err := Open(c)
		if err != nil {
			t.Fatal(err)
		}
		defer good.Close()
		eventually(t, "etcd answers over TLS", func() bool { _, err := good.List(t.Context()); return err == nil })
	}
	for _, tt := range []struct {
		name   string
		config Config
		want   []string
		denied bool
	}{
		{
			"wrong CA",
			Config{Endpoints: []string{simple.URL}, CAFile: strangerCA},
			[]string{"certificate signed by unknown authority", "correct --etcd-cafile=" + strangerCA},
			true,
		},
		{
			"no CA",
			Config{Endpoints: []string{simple.URL}},
			[]string{"certificate signed by unknown authority", "--etcd-cafile (not given: the system's authorities)"},
			true,
		},
		{
			"no client certificate",
			Config{Endpoints: []string{mutual.URL}, CAFile: ca},
			[]string{"it wants a client certificate", "give --etcd-certfile and --etcd-keyfile"},
			true,
		},
		{
			"stranger's client certificate",
			Config{Endpoints: []string{mutual.URL}, CAFile: ca, CertFile: strangerCert, KeyFile: strangerKey},
			[]string{"it refuses the client certificate " + strangerCert, "correct --etcd-certfile and --etcd-keyfile"},
			true,
		},
		{
			"another name",
			Config{Endpoints: []string{strings.Replace(simple.URL, "127.0.0.1", "127.0.0.2", 1)}, CAFile: ca},
			[]string{"connection refused"},
			false,
		},
		{
			"http to https",
			Config{Endpoints: []string{strings.Replace(simple.URL, "https", "http", 1)}},
			[]string{"speaks TLS: write https:// in --etcd-endpoints"},
			true,
		},
		{
			"https to http",
			Config{Endpoints: []string{strings.Replace(plain.URL, "http", "https", 1)}},
			[]string{"does not speak TLS: write http:// in --etcd-endpoints"},
			true,
		},
		{
			"one wrong, one not there",
			Config{Endpoints: []string{simple.URL, "https://127.0.0.1:9"}, CAFile: strangerCA},
			[]string{"no answer within 4s", simple.URL + ": its x509", "https://127.0.0.1:9: dial tcp 127.0.0.1:9: connect: connection refused"},
			false,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			tt.config.Timeout = 4 * time.Second
			c, err := Open(tt.config)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			_, err = c.List(t.Context())
			if err == nil || errors.Is(err, ErrDenied) != tt.denied || errors.Is(err, ErrNoAnswer) == tt.denied || strings.Contains(err.Error(), "\n") {
				t.Fatalf("denied %t, no answer %t: %v", errors.Is(err, ErrDenied), errors.Is(err, ErrNoAnswer), err)
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("no %q in: %v", want, err)
				}
			}
		})
	}
}

// TestTokenExpires: etcd forgets the user's token while nothing is asked, and while a watch waits; both go on.
func TestTokenExpires(t *testing.T) {
	t.Parallel()
	server := etcdtest.Start(t, "--auth-token-ttl", "2")
	apply(t, open(t, server))
	raw, ctx := server.Client(), t.Context()
	for _, step := range []func() error{
		func() error { _, err := raw.UserAdd(ctx, "root", "r"); return err },
		func() error { _, err := raw.UserGrantRole(ctx, "root", "root"); return err },
		func() error { _, err := raw.RoleAdd(ctx, "weft"); return err },
		func() error {
			_, err := raw.RoleGrantPermission(ctx, "weft", prefix, clientv3.GetPrefixRangeEnd(prefix), clientv3.PermissionType(clientv3.PermReadWrite))
			return err
		},
		func() error { _, err := raw.UserAdd(ctx, "weft", "w"); return err },
		func() error { _, err := raw.UserGrantRole(ctx, "weft", "weft"); return err },
		func() error { _, err := raw.AuthEnable(ctx); return err },
	} {
		if err := step(); err != nil {
			t.Fatal(err)
		}
	}
	as := func() *Client {
		c, err := Open(Config{Endpoints: []string{server.URL}, Username: "weft", Password: "w", Timeout: 3 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	c := as()
	k1, _ := runEvery(t, c, want(1), time.Hour) // nothing keeps the token alive
	l := own(t, k1)
	time.Sleep(5 * time.Second) // longer than the token lives
	k2, _ := run(t, as(), want(2))
	own(t, k2)
	eventually(t, "the watch goes on", func() bool { return len(k1.Peers()) == 1 })
	if _, err := c.List(ctx); err != nil {
		t.Errorf("a request after the token ran out: %v", err)
	}
	if _, err := raw.Auth.Authenticate(ctx, "weft", "wrong"); err == nil {
		t.Error("authentication is off")
	}
	if !held(k1, l.Subnet) || k1.Status().Problem != "" {
		t.Errorf("status %+v", k1.Status())
	}
}
