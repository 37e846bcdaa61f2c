// Package etcd reaches the lease store in etcd (API version 3, servers 3.4 and later) with flannel's keys. A Client is the
// store.KV of a Keeper; it also reads and writes the network config for the operator.
//
// Floor 3, edges. Everything is bounded in time, and an error says which endpoint, which key and what to do.
package etcd

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"strings"
	"time"
)

// DefaultPrefix is flannel's default --etcd-prefix.
const DefaultPrefix = "/coreos.com/network"

// Config says where etcd is. The zero value of a field is its default.
type Config struct {
	Endpoints          []string // URLs such as http://kube-master:2379, all http or all https
	Prefix             string   // of all keys; DefaultPrefix
	CAFile             string   // PEM; the system's authorities
	CertFile, KeyFile  string   // PEM; no client certificate
	Username, Password string
	Timeout            time.Duration // of one request; 5 s
}

// The flag names of Config, for errors.
const (
	flagEndpoints = "--etcd-endpoints"
	flagPrefix    = "--etcd-prefix"
	flagCA        = "--etcd-cafile"
	flagCert      = "--etcd-certfile"
	flagKey       = "--etcd-keyfile"
	flagUser      = "--etcd-username"
)

// complete fills in the defaults and refuses what cannot work; endpoints come back as URLs.
func (c Config) complete() (Config, error) {
	if c.Timeout == 0 {
		c.Timeout = 5 * time.Second
	}
	if c.Prefix == "" {
		c.Prefix = DefaultPrefix
	}
	c.Prefix = strings.TrimRight(c.Prefix, "/")
	if !strings.HasPrefix(c.Prefix, "/") {
		return c, fmt.Errorf("%s: %q does not begin with a slash: write it as %s", flagPrefix, c.Prefix, DefaultPrefix)
	}
	if len(c.Endpoints) == 0 {
		return c, fmt.Errorf("%s: missing: write http://HOST:2379", flagEndpoints)
	}
	endpoints := make([]string, len(c.Endpoints))
	for i, e := range c.Endpoints {
		u, err := endpoint(e)
		if err != nil {
			return c, err
		}
		endpoints[i] = u
		if secure(endpoints[0]) != secure(u) {
			return c, fmt.Errorf("%s: %s and %s: write all with http or all with https", flagEndpoints, endpoints[0], u)
		}
	}
	c.Endpoints = endpoints
	switch {
	case (c.CertFile == "") != (c.KeyFile == ""):
		return c, fmt.Errorf("%s and %s: one is given without the other: give both", flagCert, flagKey)
	case !secure(endpoints[0]) && c.CAFile+c.CertFile != "":
		return c, fmt.Errorf("%s: %s is not encrypted, but TLS files are given: write https://", flagEndpoints, endpoints[0])
	case c.Username == "" && c.Password != "":
		return c, fmt.Errorf("%s: missing, but a password is given", flagUser)
	}
	return c, nil
}

// endpoint reads one endpoint; a bare HOST:PORT is http.
func endpoint(s string) (string, error) {
	text := s
	if !strings.Contains(text, "://") {
		text = "http://" + text
	}
	u, err := url.Parse(text)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Hostname() == "" || strings.Trim(u.Path, "/") != "" {
		return "", fmt.Errorf("%s: %q is not an etcd endpoint: write http://HOST:2379 or https://HOST:2379", flagEndpoints, s)
	}
	if u.Port() == "" {
		return "", fmt.Errorf("%s: %q has no port: write %s://%s", flagEndpoints, s, u.Scheme, net.JoinHostPort(u.Hostname(), "2379"))
	}
	return u.Scheme + "://" + u.Host, nil
}

func secure(endpoint string) bool { return strings.HasPrefix(endpoint, "https://") }

// tlsConfig reads the TLS files; nil for plain http.
func (c Config) tlsConfig() (*tls.Config, error) {
	if !secure(c.Endpoints[0]) {
		return nil, nil
	}
	t := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.CAFile != "" {
		pem, err := os.ReadFile(c.CAFile)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", flagCA, err)
		}
		t.RootCAs = x509.NewCertPool()
		if !t.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s: %s holds no PEM certificate", flagCA, c.CAFile)
		}
	}
	if c.CertFile != "" {
		pair, err := tls.LoadX509KeyPair(c.CertFile, c.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("%s and %s: %w", flagCert, flagKey, err)
		}
		t.Certificates = []tls.Certificate{pair}
	}
	return t, nil
}

// ErrNoConfig says that the store holds no network config.
var ErrNoConfig = errors.New(`no network config: write one with "weft network apply -f net-conf.json"`)
