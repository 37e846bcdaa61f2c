package etcd

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"strings"
	"sync"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"golang.org/x/sys/unix"
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
	first, err := c.first(ctx, u, c.base.TLS)
	dial, _ := errors.AsType[*net.OpError](err)
	switch {
	case dial != nil && dial.Op == "dial":
		return err
	case errors.Is(err, io.EOF), errors.Is(err, unix.ECONNRESET):
		return c.other(ctx, u)
	case err != nil:
		return c.untrusted(ctx, err)
	}
	switch first {
	case tlsAlert:
		return denied{fmt.Errorf("%s speaks TLS: write https:// in %s", u.Host, flagEndpoints)}
	case httpFirst:
		return denied{fmt.Errorf("%s speaks HTTP/1, so it is not etcd's client port: correct %s", u.Host, flagEndpoints)}
	}
	return nil
}

// other finds out whether an endpoint that hangs up speaks TLS and is spoken to in clear, or the other way round.
func (c *Client) other(ctx context.Context, u *url.URL) error {
	if c.base.TLS != nil {
		if _, err := c.first(ctx, u, nil); err == nil {
			return denied{fmt.Errorf("%s does not speak TLS: write http:// in %s", u.Host, flagEndpoints)}
		}
		return errors.New("it ends the connection at once")
	}
	// Nothing is told to the other end, so it need not be trusted.
	_, err := c.first(ctx, u, &tls.Config{InsecureSkipVerify: true}) //nolint:gosec // as said
	if alert := tls.AlertError(0); err == nil || errors.As(err, &alert) || strings.Contains(err.Error(), "remote error: tls:") {
		return denied{fmt.Errorf("%s speaks TLS: write https:// in %s", u.Host, flagEndpoints)}
	}
	return errors.New("it ends the connection at once")
}

// first returns the first byte an endpoint says.
func (c *Client) first(ctx context.Context, u *url.URL, config *tls.Config) (byte, error) {
	conn, err := c.dial(ctx, "tcp", u.Host)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	if until, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(until); err != nil {
			return 0, err
		}
	}
	if config != nil {
		config = config.Clone()
		config.NextProtos, config.ServerName = []string{"h2"}, u.Hostname()
		conn = tls.Client(conn, config)
	}
	if _, err := conn.Write([]byte(hello)); err != nil {
		return 0, err
	}
	var first [1]byte
	_, err = conn.Read(first[:])
	return first[0], err
}

// untrusted says which file to correct when the two ends do not trust each other; nil when the other end just says nothing.
func (c *Client) untrusted(ctx context.Context, err error) error {
	var (
		authority x509.UnknownAuthorityError
		hostname  x509.HostnameError
		invalid   x509.CertificateInvalidError
		alert     tls.AlertError
	)
	switch {
	case ctx.Err() != nil, errors.Is(err, os.ErrDeadlineExceeded):
		return nil
	case errors.As(err, &authority):
		return denied{fmt.Errorf("its %w: correct %s", authority, c.caName())}
	case errors.As(err, &hostname):
		return denied{fmt.Errorf("its certificate is not for the name in %s: %w", flagEndpoints, hostname)}
	case errors.As(err, &invalid):
		return denied{fmt.Errorf("its certificate: %w", invalid)}
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
