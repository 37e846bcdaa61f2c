package server

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
	"k8s.io/apiserver/pkg/storage/storagebackend"
	"k8s.io/apiserver/pkg/storage/storagebackend/factory"
)

// etcdPatience is how long a start waits for an external etcd.
const etcdPatience = 10 * time.Second

func itoa(n int) string { return strconv.Itoa(n) }

// listenURLs are the parsed --listen-client-urls, and the endpoint the API server reaches the embedded etcd at.
func (o *Options) listenURLs() (urls []url.URL, endpoint string, err error) {
	for _, raw := range o.ListenClientURLs {
		u, err := url.Parse(raw)
		if err != nil || u.Scheme != "http" || u.Port() == "" || net.ParseIP(u.Hostname()) == nil {
			return nil, "", fmt.Errorf("--listen-client-urls: %q is not like http://127.0.0.1:2379 (an address of this host and a port)", raw)
		}
		urls = append(urls, *u)
		if ip := net.ParseIP(u.Hostname()); endpoint == "" || ip.IsLoopback() {
			if ip.IsUnspecified() {
				u.Host = net.JoinHostPort("127.0.0.1", u.Port())
			}
			endpoint = u.String()
		}
	}
	if len(urls) == 0 {
		return nil, "", fmt.Errorf("--listen-client-urls is empty: the API server itself needs one, like http://127.0.0.1:2379")
	}
	return urls, endpoint, nil
}

// startEtcd runs the embedded etcd on dir: one member, no peer port (it has no peers).
func (o *Options) startEtcd(ctx context.Context, dir string, urls []url.URL) (*embed.Etcd, error) {
	cfg := embed.NewConfig()
	cfg.Name, cfg.Dir = "weft", dir
	cfg.ListenPeerUrls = nil
	cfg.AdvertisePeerUrls = []url.URL{{Scheme: "http", Host: "127.0.0.1:2380"}} // a member has to claim one; nobody dials it
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls = urls, urls
	cfg.InitialCluster = cfg.InitialClusterFromName(cfg.Name)
	cfg.TickMs, cfg.ElectionMs = 20, 100 // the only candidate wins at once
	cfg.EnableGRPCGateway = false
	cfg.UnsafeNoFsync = o.NoFsync
	cfg.LogLevel = "fatal" // what goes wrong at a start is in the error, later on the API server tells
	if o.Verbosity > 1 {
		cfg.LogLevel = "info"
	}
	e, err := embed.StartEtcd(cfg)
	if err != nil {
		return nil, fmt.Errorf("start embedded etcd: %w", portHint(err, "--listen-client-urls"))
	}
	timeout := time.NewTimer(30 * time.Second)
	defer timeout.Stop()
	select {
	case <-e.Server.ReadyNotify():
		return e, nil
	case err = <-e.Err():
	case <-ctx.Done():
		err = ctx.Err()
	case <-timeout.C:
		err = fmt.Errorf("not ready after 30s (is the disk of %s overloaded?)", dir)
	}
	e.Close()
	return nil, fmt.Errorf("start embedded etcd: %w", err)
}

// portHint names the flag to change when a port is taken or refused.
func portHint(err error, flag string) error {
	switch text := err.Error(); {
	case strings.Contains(text, "address already in use"):
		return fmt.Errorf("%w: another program has the port; stop it or change %s", err, flag)
	case strings.Contains(text, "permission denied"):
		return fmt.Errorf("%w: ports below 1024 are root's; change %s", err, flag)
	case strings.Contains(text, "cannot assign requested address"):
		return fmt.Errorf("%w: this host has no such address; change %s", err, flag)
	}
	return err
}

// awaitEtcd waits for an external etcd to answer, for etcdPatience at most.
func awaitEtcd(ctx context.Context, log *slog.Logger, store storagebackend.Config) error {
	ctx, cancel := context.WithTimeout(ctx, etcdPatience)
	defer cancel()
	servers := strings.Join(store.Transport.ServerList, ",")
	check, err := factory.CreateHealthCheck(store, ctx.Done())
	if err != nil {
		return fmt.Errorf("--etcd-servers %s: %w", servers, err)
	}
	answers := make(chan struct{})
	go func() { // a check may hang for longer than our patience
		if poll(ctx, 100*time.Millisecond, func() bool { return check() == nil }) == nil {
			close(answers)
		}
	}()
	tick := time.NewTicker(2 * time.Second)
	defer tick.Stop()
	for start := time.Now(); ; {
		select {
		case <-answers:
			return nil
		case <-ctx.Done():
			return fmt.Errorf("--etcd-servers %s: no etcd answers there (tried for %s): start it, or leave the flag out for the embedded one",
				servers, time.Since(start).Round(time.Second))
		case <-tick.C:
			log.Info("waiting for etcd", "servers", servers, "for", time.Since(start).Round(time.Second))
		}
	}
}
