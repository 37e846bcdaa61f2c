// Package probe asks containers whether they started, live and are ready, and counts the answers by a probe's thresholds.
//
// Floor 4, programs (part of node).
package probe

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"weft/internal/kernel/netns"
)

// Target is where a container is found.
type Target struct {
	Host      string // address of the pod
	Netns     string // path of the network namespace to dial from, "" for the host's
	Container *corev1.Container
	Exec      func(ctx context.Context, cmd []string, output io.Writer) (exitCode int, err error)
}

// maxOutput is how much of an answer is kept for the event, in bytes.
const maxOutput = 1024

// Once probes once. nil is success; the error is what kubectl describe shows after "probe failed: ".
func Once(ctx context.Context, p *corev1.Probe, t Target) error {
	ctx, cancel := context.WithTimeout(ctx, seconds(p.TimeoutSeconds, 1))
	defer cancel()
	return do(ctx, p.ProbeHandler, t)
}

// Hook runs a lifecycle hook: an exec, an HTTP request or a sleep.
func Hook(ctx context.Context, h *corev1.LifecycleHandler, t Target) error {
	if h.Sleep != nil {
		timer := time.NewTimer(time.Duration(h.Sleep.Seconds) * time.Second)
		defer timer.Stop()
		select {
		case <-ctx.Done():
		case <-timer.C:
		}
		return nil
	}
	return do(ctx, corev1.ProbeHandler{Exec: h.Exec, HTTPGet: h.HTTPGet, TCPSocket: h.TCPSocket}, t)
}

func do(ctx context.Context, h corev1.ProbeHandler, t Target) error {
	switch {
	case h.Exec != nil:
		return execute(ctx, h.Exec.Command, t)
	case h.HTTPGet != nil:
		return httpGet(ctx, h.HTTPGet, t)
	case h.TCPSocket != nil:
		return tcp(ctx, h.TCPSocket, t)
	case h.GRPC != nil:
		return errors.New("grpc probes are not supported by this node: use httpGet, tcpSocket or exec")
	}
	return errors.New("probe names no action: set exec, httpGet or tcpSocket")
}

func execute(ctx context.Context, cmd []string, t Target) error {
	var out limited
	code, err := t.Exec(ctx, cmd, &out)
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("command %q timed out", strings.Join(cmd, " "))
	case err != nil:
		return err
	case code != 0:
		return fmt.Errorf("command %q ended with exit code %d: %s", strings.Join(cmd, " "), code, strings.TrimSpace(string(out.kept)))
	}
	return nil
}

func tcp(ctx context.Context, a *corev1.TCPSocketAction, t Target) error {
	port, err := resolve(a.Port, t.Container)
	if err != nil {
		return err
	}
	conn, err := dial(ctx, t, net.JoinHostPort(or(a.Host, t.Host), port))
	if err != nil {
		return err
	}
	conn.Close()
	return nil
}

func httpGet(ctx context.Context, a *corev1.HTTPGetAction, t Target) error {
	port, err := resolve(a.Port, t.Container)
	if err != nil {
		return err
	}
	address := net.JoinHostPort(or(a.Host, t.Host), port)
	path, err := url.Parse(a.Path)
	if err != nil {
		return fmt.Errorf("path %q: %w", a.Path, err)
	}
	target := *path
	target.Scheme, target.Host, target.Path = strings.ToLower(or(string(a.Scheme), "http")), address, "/"+strings.TrimPrefix(path.Path, "/")
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target.String(), http.NoBody)
	if err != nil {
		return fmt.Errorf("make request: %w", err)
	}
	req.Header.Set("User-Agent", "kube-probe/1.36")
	req.Header.Set("Accept", "*/*")
	for _, h := range a.HTTPHeaders {
		req.Header.Add(h.Name, h.Value)
		if http.CanonicalHeaderKey(h.Name) == "Host" {
			req.Host = h.Value
		}
	}
	return request(req, t, address)
}

// request succeeds with a status of 200 to 399. A redirect to another host is an answer, not followed.
func request(req *http.Request, t Target, address string) error {
	client := &http.Client{
		Transport: &http.Transport{
			DisableKeepAlives: true,
			TLSClientConfig:   &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12}, // the pod's certificate is its own matter
			DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx, t, address) },
		},
		CheckRedirect: func(next *http.Request, via []*http.Request) error {
			if len(via) >= 10 || next.URL.Host != via[0].URL.Host {
				return http.ErrUseLastResponse
			}
			return nil
		},
	}
	answer, err := client.Do(req)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode < 200 || answer.StatusCode >= 400 {
		return fmt.Errorf("HTTP probe failed with statuscode: %d", answer.StatusCode)
	}
	return nil
}

// dial connects from the host, or from inside a network namespace.
func dial(ctx context.Context, t Target, address string) (conn net.Conn, err error) {
	var d net.Dialer
	if t.Netns == "" {
		return d.DialContext(ctx, "tcp", address)
	}
	err = netns.Do(t.Netns, func() error {
		conn, err = d.DialContext(ctx, "tcp", address)
		return err
	})
	return conn, err
}

// resolve returns a port's number; a name is one of the container's ports.
func resolve(p intstr.IntOrString, c *corev1.Container) (string, error) {
	number := p.IntValue()
	if p.Type == intstr.String {
		for _, cp := range c.Ports {
			if cp.Name == p.StrVal {
				number = int(cp.ContainerPort)
			}
		}
	}
	if number < 1 || number > 65535 {
		return "", fmt.Errorf("port %q is neither a port number nor the name of a port of container %s", p.String(), c.Name)
	}
	return strconv.Itoa(number), nil
}

func or(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

func seconds(n, unset int32) time.Duration {
	if n < 1 {
		n = unset
	}
	return time.Duration(n) * time.Second
}

// limited keeps the first maxOutput bytes.
type limited struct{ kept []byte }

// Write takes everything and keeps what fits.
func (l *limited) Write(p []byte) (int, error) {
	l.kept = append(l.kept, p[:min(maxOutput-len(l.kept), len(p))]...)
	return len(p), nil
}
