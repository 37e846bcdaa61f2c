package etcd

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// ErrNoAnswer says that etcd could not be reached in time.
var ErrNoAnswer = errors.New("no answer")

// explain makes an error of the etcd client one line that says what to do.
func (c *Client) explain(ctx context.Context, err error) error {
	where := "etcd " + strings.Join(c.config.Endpoints, ",")
	switch code := status.Code(err); {
	case ctx.Err() != nil:
		return ctx.Err() // the caller gave up
	case errors.Is(err, rpctypes.ErrPermissionDenied), code == codes.PermissionDenied:
		return fmt.Errorf("%s: %w: grant the user read and write of %s/ (etcdctl role grant-permission)", where, err, c.config.Prefix)
	case errors.Is(err, rpctypes.ErrAuthFailed):
		return fmt.Errorf("%s: %w: correct %s and the password", where, err, flagUser)
	case errors.Is(err, rpctypes.ErrUserEmpty):
		return fmt.Errorf("%s: %w: authentication is on: give %s", where, err, flagUser)
	case errors.Is(err, context.DeadlineExceeded), code == codes.DeadlineExceeded, code == codes.Unavailable:
		return fmt.Errorf("%s: %w within %s (%s): start it or correct %s", where, ErrNoAnswer, c.config.Timeout, c.why(ctx, err),
			flagEndpoints)
	}
	return fmt.Errorf("%s: %w", where, err)
}

// why finds out what keeps etcd from answering. The client only says that time ran out, so the endpoints are tried once.
func (c *Client) why(ctx context.Context, err error) string {
	if status.Code(err) == codes.Unavailable && !strings.Contains(err.Error(), "connection error") {
		return status.Convert(err).Message() // etcd's own words, such as "etcdserver: no leader"
	}
	ctx, stop := context.WithTimeout(ctx, c.reserve())
	defer stop()
	reason := "it takes connections but says nothing"
	for _, e := range c.config.Endpoints {
		if err := c.knock(ctx, e); err != nil {
			reason = err.Error()
		}
	}
	return reason
}

// knock connects to an endpoint and leaves.
func (c *Client) knock(ctx context.Context, endpoint string) error {
	u, err := url.Parse(endpoint)
	if err != nil {
		return err
	}
	var conn net.Conn
	if c.base.TLS != nil {
		conn, err = (&tls.Dialer{Config: c.base.TLS.Clone()}).DialContext(ctx, "tcp", u.Host)
	} else {
		conn, err = (&net.Dialer{}).DialContext(ctx, "tcp", u.Host)
	}
	if err != nil {
		return err
	}
	return conn.Close()
}
