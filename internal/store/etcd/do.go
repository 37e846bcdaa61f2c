package etcd

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"weft/internal/lease"
	"weft/internal/lease/claim"
)

// Do carries out one action of a lease's life, within the configured bound.
func (c *Client) Do(ctx context.Context, a claim.Action) claim.Outcome {
	o := claim.Outcome{Sent: time.Now()}
	what := fmt.Sprintf("%s %s", a.Verb, c.key(claim.Subnets+a.Key))
	if a.Key == "" {
		what = fmt.Sprintf("%s etcd lease %x", a.Verb, a.EtcdLease)
	}
	err := c.ask(ctx, what, func(ctx context.Context, client *clientv3.Client) error {
		o.Result = claim.Done // it may be the second try
		err := c.do(ctx, client, a, &o)
		if err != nil {
			o.Result = result(err)
		}
		return err
	})
	if err != nil {
		o.Err = err
		if o.Result == claim.Done {
			o.Result = claim.Unknown // no connection
		}
	}
	return o
}

func (c *Client) do(ctx context.Context, client *clientv3.Client, a claim.Action, o *claim.Outcome) error {
	switch a.Verb {
	case claim.Extend:
		r, err := client.KeepAliveOnce(ctx, clientv3.LeaseID(a.EtcdLease))
		if err == nil {
			o.TTL = r.TTL
		}
		return err
	case claim.Revoke:
		_, err := client.Revoke(ctx, clientv3.LeaseID(a.EtcdLease))
		return err
	case claim.Claim, claim.TakeOver, claim.Update:
		return c.put(ctx, client, a, o)
	}
	return fmt.Errorf("%s is not an action of the store", a.Verb)
}

// put writes a lease key in one transaction with everything it was decided on as its condition.
func (c *Client) put(ctx context.Context, client *clientv3.Client, a claim.Action, o *claim.Outcome) error {
	value, err := lease.Marshal(a.Lease)
	if err != nil {
		return status.Error(codes.InvalidArgument, err.Error())
	}
	id := clientv3.LeaseID(a.EtcdLease)
	if a.Verb != claim.Update && !a.Permanent {
		granted, err := client.Grant(ctx, int64(claim.TTL/time.Second))
		if err != nil {
			return err
		}
		id = granted.ID
		o.EtcdLease = int64(id)
	}
	key := c.key(claim.Subnets + a.Key)
	conditions := []clientv3.Cmp{clientv3.Compare(clientv3.ModRevision(key), "=", a.Modified)}
	var ops []clientv3.Op
	for _, r := range a.Delete {
		old := c.key(claim.Subnets + r.Key)
		conditions = append(conditions, clientv3.Compare(clientv3.ModRevision(old), "=", r.Modified))
		ops = append(ops, clientv3.OpDelete(old))
	}
	if a.Verb == claim.Claim {
		config, nearby := c.key(claim.ConfigKey), c.key(claim.Subnets+a.Guard)
		conditions = append(conditions, clientv3.Compare(clientv3.ModRevision(config), "=", a.ConfigRevision),
			clientv3.Compare(clientv3.CreateRevision(nearby), "<", a.Revision+1).WithPrefix())
	}
	ops = append(ops, clientv3.OpPut(key, string(value), clientv3.WithLease(id)))
	r, err := client.Txn(ctx).If(conditions...).Then(ops...).Commit()
	if err != nil {
		return err
	}
	o.Revision = r.Header.Revision
	if !r.Succeeded {
		o.Result = claim.Conflict
	}
	return nil
}

// result sorts an error of etcd: what it will never do, what it does not know, and what may have happened.
func result(err error) claim.Result {
	if errors.Is(err, rpctypes.ErrLeaseNotFound) {
		return claim.NoLease
	}
	code := status.Code(err)
	if e, ok := errors.AsType[rpctypes.EtcdError](err); ok {
		code = e.Code()
	}
	switch code {
	case codes.NotFound:
		return claim.NoLease
	case codes.PermissionDenied, codes.InvalidArgument, codes.Unauthenticated, codes.Unimplemented:
		return claim.Refused
	}
	return claim.Unknown
}
