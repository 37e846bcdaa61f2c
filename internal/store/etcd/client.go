package etcd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"

	"weft/internal/lease/claim"
)

// A connection whose other end died without a word is found dead after these: 10 s of silence, then 5 s for an answer.
// etcd refuses clients that ask more often than every 5 s.
const (
	keepaliveTime    = 10 * time.Second
	keepaliveTimeout = 5 * time.Second
)

// A watch is asked for a sign of life when it has said nothing for pingEvery, and given up when none comes within pingWait: its
// connection may lead to a host that lost its power, which nobody else notices for minutes.
const (
	pingEvery = 4 * time.Second
	pingWait  = 3 * time.Second
)

// errSilent says that a watch gave no sign of life.
var errSilent = errors.New("its connection went silent, making a new one")

// Client is a connection to etcd. Its methods may be called from any goroutine.
type Client struct {
	config Config
	base   clientv3.Config
	dial   func(ctx context.Context, network, address string) (net.Conn, error)

	mu     sync.Mutex
	client *clientv3.Client // nil until the first use
	closed bool
}

// Open checks the config and reads the TLS files. It does not wait for etcd: the first request does.
func Open(c Config) (*Client, error) {
	c, err := c.complete()
	if err != nil {
		return nil, err
	}
	t, err := c.tlsConfig()
	if err != nil {
		return nil, err
	}
	return &Client{config: c, dial: (&net.Dialer{}).DialContext, base: clientv3.Config{
		Endpoints: c.Endpoints, TLS: t, Username: c.Username, Password: c.Password,
		DialTimeout: c.Timeout - c.Timeout/5, DialKeepAliveTime: keepaliveTime, DialKeepAliveTimeout: keepaliveTimeout,
		PermitWithoutStream: true, Logger: zap.NewNop(),
		DialOptions: []grpc.DialOption{grpc.WithChainUnaryInterceptor(noticeToken), grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 3 * time.Second},
			MinConnectTimeout: 3 * time.Second,
		})},
	}}, nil
}

// Close ends the connection.
func (c *Client) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	if c.client == nil {
		return nil
	}
	return c.client.Close()
}

// Endpoints returns the endpoints as URLs.
func (c *Client) Endpoints() []string { return c.config.Endpoints }

// conn returns the connection. With a user name etcd has to be there for the first one: it hands out a token.
func (c *Client) conn() (*clientv3.Client, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, errors.New("etcd client is closed")
	}
	if c.client == nil {
		client, err := clientv3.New(c.base)
		if err != nil {
			return nil, err
		}
		c.client = client
	}
	return c.client, nil
}

// drop gives up a connection that may be dead, so that the next request makes new ones, of which only those are used that stand.
func (c *Client) drop(client *clientv3.Client) {
	c.mu.Lock()
	mine := c.client == client && !c.closed
	if mine {
		c.client = nil
	}
	c.mu.Unlock()
	if mine {
		_ = client.Close() // what is under way on it is answered with an error
	}
}

func (c *Client) key(name string) string { return c.config.Prefix + "/" + name }

// ask runs one request with the configured bound and says in its error where it went.
func (c *Client) ask(ctx context.Context, what string, f func(context.Context, *clientv3.Client) error) error {
	bound, stop := context.WithTimeout(ctx, c.config.Timeout-c.reserve())
	defer stop()
	client, err := c.conn()
	if err == nil {
		// A member without a leader says so at once and does not keep the request waiting.
		err = f(clientv3.WithRequireLeader(bound), client)
	}
	if isTokenGone(err) {
		c.drop(client) // nothing was done
		if client, err = c.conn(); err == nil {
			err = f(clientv3.WithRequireLeader(bound), client)
		}
	}
	if bound.Err() != nil && ctx.Err() == nil && client != nil {
		c.drop(client)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", what, c.explain(ctx, err))
	}
	return nil
}

// reserve is the part of a request's time that is kept to find out why there was no answer.
func (c *Client) reserve() time.Duration { return c.config.Timeout / 5 }

// List returns everything below the prefix at one revision, in one request.
func (c *Client) List(ctx context.Context) (claim.Snapshot, error) {
	var s claim.Snapshot
	err := c.ask(ctx, "read "+c.key(""), func(ctx context.Context, client *clientv3.Client) error {
		r, err := client.Get(ctx, c.key(""), clientv3.WithPrefix())
		if err != nil {
			return err
		}
		s.Revision, s.Cluster = r.Header.Revision, r.Header.ClusterId
		s.Entries = make([]claim.Entry, len(r.Kvs))
		for i, kv := range r.Kvs {
			s.Entries[i] = c.entry(kv)
		}
		return nil
	})
	return s, err
}

func (c *Client) entry(kv *mvccpb.KeyValue) claim.Entry {
	return claim.Entry{
		Key: strings.TrimPrefix(string(kv.Key), c.key("")), Value: kv.Value, Lease: kv.Lease,
		Created: kv.CreateRevision, Modified: kv.ModRevision,
	}
}

// Watch sends the changes after a revision until ctx ends or the watch breaks: compaction, a member without a leader, a
// connection that died.
func (c *Client) Watch(ctx context.Context, revision int64, to func(claim.Batch)) error {
	client, err := c.conn()
	if err != nil {
		return fmt.Errorf("watch %s: %w", c.key(""), c.explain(ctx, err))
	}
	ctx, stop := context.WithCancelCause(clientv3.WithRequireLeader(ctx))
	defer stop(nil)
	heard := make(chan struct{}, 1)
	go c.listen(ctx, client, heard, stop)
	events := client.Watch(ctx, c.key(""), clientv3.WithPrefix(), clientv3.WithRev(revision+1))
	for r := range events {
		select {
		case heard <- struct{}{}:
		default:
		}
		if err := r.Err(); err != nil {
			return fmt.Errorf("watch %s: %w", c.key(""), c.explain(ctx, err))
		}
		if b := c.batch(r); b.Revision > 0 {
			to(b)
		}
	}
	if cause := context.Cause(ctx); cause != nil {
		return fmt.Errorf("watch %s: %w", c.key(""), cause)
	}
	return fmt.Errorf("watch %s: ended", c.key(""))
}

// listen asks a watch that says nothing for a sign of life, and ends it when there is none.
func (c *Client) listen(ctx context.Context, client *clientv3.Client, heard <-chan struct{}, stop context.CancelCauseFunc) {
	timer := time.NewTimer(pingEvery)
	defer timer.Stop()
	asked := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-heard:
			asked = false
			timer.Reset(pingEvery)
			continue
		case <-timer.C:
		}
		if asked {
			stop(errSilent)
			c.drop(client)
			return
		}
		asked = true
		timer.Reset(pingWait)
		bound, end := context.WithTimeout(ctx, pingWait)
		_ = client.RequestProgress(bound) // no answer is what counts
		end()
	}
}

// batch reads a watch response. Its revision is that of the last event: the header's may be ahead of events still to come, and so may
// that of an answer to a ping (etcd before 3.4.25).
func (c *Client) batch(r clientv3.WatchResponse) claim.Batch {
	var b claim.Batch
	for _, e := range r.Events {
		b.Changes = append(b.Changes, claim.Change{Entry: c.entry(e.Kv), Deleted: e.Type == clientv3.EventTypeDelete})
		b.Revision = max(b.Revision, e.Kv.ModRevision)
	}
	return b
}

// Check asks a quorum for the present revision and the cluster's identity.
func (c *Client) Check(ctx context.Context) (revision int64, cluster uint64, err error) {
	err = c.ask(ctx, "read "+c.key(claim.ConfigKey), func(ctx context.Context, client *clientv3.Client) error {
		r, err := client.Get(ctx, c.key(claim.ConfigKey), clientv3.WithKeysOnly())
		if err == nil {
			revision, cluster = r.Header.Revision, r.Header.ClusterId
		}
		return err
	})
	return revision, cluster, err
}
