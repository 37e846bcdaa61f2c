package etcd

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"sync"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// ErrNoAnswer says that etcd could not be reached in time.
var ErrNoAnswer = errors.New("no answer")

// ErrDenied says that waiting does not help: etcd refuses this identity, or one end does not trust the other's certificate. The
// message names the flag to correct.
var ErrDenied = errors.New("etcd denies access")

// denied is an error that errors.Is finds to be ErrDenied, without words of its own.
type denied struct{ error }

func (d denied) Is(target error) bool { return target == ErrDenied }
func (d denied) Unwrap() error        { return d.error }

// explain makes an error of the etcd client one line that says what to do.
func (c *Client) explain(ctx context.Context, err error) error {
	where := "etcd " + strings.Join(c.config.Endpoints, ",")
	switch code := status.Code(err); {
	case ctx.Err() != nil:
		return ctx.Err() // the caller gave up
	case errors.Is(err, rpctypes.ErrPermissionDenied), code == codes.PermissionDenied:
		return denied{fmt.Errorf("%s: %w: grant the user read and write of %s/ (etcdctl role grant-permission)", where, err, c.config.Prefix)}
	case errors.Is(err, rpctypes.ErrAuthFailed):
		return denied{fmt.Errorf("%s: %w: correct %s=%s and its password", where, err, flagUser, c.config.Username)}
	case errors.Is(err, rpctypes.ErrAuthNotEnabled):
		return denied{fmt.Errorf("%s: %w: leave out %s, or turn it on (etcdctl auth enable)", where, err, flagUser)}
	case errors.Is(err, rpctypes.ErrUserEmpty):
		return denied{fmt.Errorf("%s: %w: authentication is on: give %s", where, err, flagUser)}
	case errors.Is(err, context.DeadlineExceeded), code == codes.DeadlineExceeded, code == codes.Unavailable:
		why, hopeless := c.why(ctx, err)
		if hopeless {
			return denied{fmt.Errorf("%s: %s", where, why)}
		}
		return fmt.Errorf("%s: %w within %s (%s): start it or correct %s", where, ErrNoAnswer, c.config.Timeout, why, flagEndpoints)
	}
	return fmt.Errorf("%s: %w", where, err)
}

// why finds out what keeps etcd from answering. The client only says that time ran out, so each endpoint is tried once. hopeless is
// true when none of them will ever do.
func (c *Client) why(ctx context.Context, err error) (text string, hopeless bool) {
	if status.Code(err) == codes.Unavailable && !strings.Contains(err.Error(), "connection") {
		return status.Convert(err).Message(), false // etcd's own words, such as "etcdserver: no leader"
	}
	ctx, stop := context.WithTimeout(ctx, c.reserve())
	defer stop()
	said := make([]error, len(c.config.Endpoints))
	var wg sync.WaitGroup
	for i, e := range c.config.Endpoints {
		wg.Go(func() { said[i] = c.knock(ctx, e) })
	}
	wg.Wait()
	hopeless = true
	words := make([]string, len(said))
	for i, err := range said {
		if words[i] = "it takes connections but says nothing"; err != nil {
			words[i] = err.Error()
		}
		if len(said) > 1 {
			words[i] = c.config.Endpoints[i] + ": " + words[i]
		}
		hopeless = hopeless && errors.Is(err, ErrDenied)
	}
	return strings.Join(words, "; "), hopeless
}

// hello is what an HTTP/2 client says first (RFC 9113, 3.4), with an empty SETTINGS frame.
const hello = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"

// The first byte of a server's answer.
const (
	tlsAlert  = 0x15 // it speaks TLS (RFC 8446, 5.1)
	httpFirst = 'H'  // it speaks HTTP/1
)

// knock connects to an endpoint and waits for its first byte: a server that refuses a certificate says so only then.
func (c *Client) knock(ctx context.Context, endpoint string) error {
	u, err := url.Parse(endpoint)
	if err != nil {
		return err
	}
	conn, err := c.dial(ctx, "tcp", u.Host)
	if err != nil {
		return err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	if c.base.TLS != nil {
		config := c.base.TLS.Clone()
		config.NextProtos = []string{"h2"}
		config.ServerName = u.Hostname()
		conn = tls.Client(conn, config)
	}
	if _, err := conn.Write([]byte(hello)); err != nil {
		return c.untrusted(ctx, endpoint, err)
	}
	var first [1]byte
	if _, err := conn.Read(first[:]); err != nil {
		return c.untrusted(ctx, endpoint, err)
	}
	switch first[0] {
	case tlsAlert:
		return denied{fmt.Errorf("%s speaks TLS: write https:// in %s", u.Host, flagEndpoints)}
	case httpFirst:
		return denied{fmt.Errorf("%s speaks HTTP/1, so it is not etcd's client port: correct %s", u.Host, flagEndpoints)}
	}
	return nil
}

// untrusted says which file to correct when the two ends do not trust each other; nil when the other end just says nothing.
func (c *Client) untrusted(ctx context.Context, endpoint string, err error) error {
	var (
		authority x509.UnknownAuthorityError
		hostname  x509.HostnameError
		invalid   x509.CertificateInvalidError
		record    tls.RecordHeaderError
		alert     tls.AlertError
	)
	switch {
	case ctx.Err() != nil:
		return nil
	case errors.As(err, &authority):
		return denied{fmt.Errorf("its %w: correct %s", authority, c.caName())}
	case errors.As(err, &hostname):
		return denied{fmt.Errorf("its certificate is not for the name in %s: %w", flagEndpoints, hostname)}
	case errors.As(err, &invalid):
		return denied{fmt.Errorf("its certificate: %w", invalid)}
	case errors.As(err, &record):
		return denied{fmt.Errorf("%s does not speak TLS: write http:// in %s", endpoint, flagEndpoints)}
	case errors.As(err, &alert), strings.Contains(err.Error(), "remote error: tls:"):
		if c.config.CertFile == "" {
			return denied{fmt.Errorf("it wants a client certificate (%w): give %s and %s", err, flagCert, flagKey)}
		}
		return denied{fmt.Errorf("it refuses the client certificate %s (%w): correct %s and %s", c.config.CertFile, err, flagCert, flagKey)}
	}
	return err
}

// caName is the flag of the authorities, with what is in force.
func (c *Client) caName() string {
	if c.config.CAFile == "" {
		return flagCA + " (not given: the system's authorities)"
	}
	return flagCA + "=" + c.config.CAFile
}
