package etcd

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"weft/internal/api"
	"weft/internal/lease"
	"weft/internal/lease/claim"
)

// ErrTaken says that a subnet cannot be reserved because of another lease.
var ErrTaken = errors.New("subnet is taken")

// ErrNoLease says that the store holds no lease of a subnet.
var ErrNoLease = errors.New("no lease of this subnet")

// Reserve makes the subnets of want belong to its public address for ever: it writes a lease without time to live, or takes the time to
// live from the one that host holds. fresh is false when the reservation was there. Nothing can come between check and write.
func (c *Client) Reserve(ctx context.Context, want api.Lease) (fresh bool, err error) {
	key := lease.Key(want)
	for range configTries {
		s, err := c.List(ctx)
		if err != nil {
			return false, err
		}
		var view claim.View
		view.Reset(s, time.Time{})
		value, modified, there, err := reservation(&view, want)
		if err != nil || there {
			return false, err
		}
		done, err := c.putReservation(ctx, key, value, modified, s.Revision)
		if err != nil || done {
			return done, err
		}
	}
	return false, fmt.Errorf("reserve %s: the leases changed %d times meanwhile: try again", key, configTries)
}

// reservation is the value to write and the revision it replaces; there is true when nothing is to be done.
func reservation(v *claim.View, want api.Lease) (value []byte, modified int64, there bool, err error) {
	if !v.HasConfig {
		return nil, 0, false, ErrNoConfig
	}
	if err := fits(v.Config, want); err != nil {
		return nil, 0, false, fmt.Errorf("reserve: %w", err)
	}
	key := lease.Key(want)
	for _, r := range v.Records() {
		same := sharesPublic(r.Lease, want)
		switch {
		case r.Key == key && same && r.Reserved():
			return nil, 0, true, nil
		case r.Key == key && same:
			want, modified = r.Lease, r.Modified
		case overlaps(r.Lease, want):
			return nil, 0, false, fmt.Errorf("reserve %s: %w: by lease %s of %s: choose another subnet, or release that lease first",
				key, ErrTaken, r.Key, address(r.Lease))
		case same && r.Reserved():
			return nil, 0, false, fmt.Errorf("reserve %s: %w: %s has the reservation %s already: release that first", key, ErrTaken,
				address(r.Lease), r.Key)
		}
	}
	value, err = lease.Marshal(want)
	return value, modified, false, err
}

// fits says why the network cannot carry a lease of these subnets.
func fits(c lease.Config, want api.Lease) error {
	for _, v6 := range []bool{false, true} {
		p, r := lease.Subnet(want, v6), c.Range(v6)
		if !p.IsValid() && r.Network.IsValid() {
			return errors.New("the network has both families: give a subnet of each, with a comma between")
		}
		if p.IsValid() {
			if err := r.Fits(p); err != nil {
				return err
			}
		}
	}
	return nil
}

func sharesPublic(a, b api.Lease) bool {
	return a.PublicIP.IsValid() && a.PublicIP == b.PublicIP || a.PublicIPv6.IsValid() && a.PublicIPv6 == b.PublicIPv6
}

func overlaps(a, b api.Lease) bool {
	return a.Subnet.IsValid() && b.Subnet.IsValid() && a.Subnet.Overlaps(b.Subnet) ||
		a.SubnetV6.IsValid() && b.SubnetV6.IsValid() && a.SubnetV6.Overlaps(b.SubnetV6)
}

func address(l api.Lease) string {
	for _, a := range []netip.Addr{l.PublicIP, l.PublicIPv6} {
		if a.IsValid() {
			return a.String()
		}
	}
	return "an unknown host"
}

func (c *Client) putReservation(ctx context.Context, name string, value []byte, modified, revision int64) (done bool, err error) {
	key, subnets := c.key(claim.Subnets+name), c.key(claim.Subnets)
	err = c.ask(ctx, "write "+key, func(ctx context.Context, client *clientv3.Client) error {
		r, err := client.Txn(ctx).If(
			clientv3.Compare(clientv3.ModRevision(key), "=", modified),
			clientv3.Compare(clientv3.CreateRevision(subnets), "<", revision+1).WithPrefix(),
		).Then(clientv3.OpPut(key, string(value))).Commit()
		if err == nil {
			done = r.Succeeded
		}
		return err
	})
	return done, err
}

// Release deletes the lease under a key as it was last changed at modified. ErrNoLease says that it is not there, or another one now.
func (c *Client) Release(ctx context.Context, name string, modified int64) error {
	key, done := c.key(claim.Subnets+name), false
	err := c.ask(ctx, "delete "+key, func(ctx context.Context, client *clientv3.Client) error {
		r, err := client.Txn(ctx).If(clientv3.Compare(clientv3.ModRevision(key), "=", modified)).Then(clientv3.OpDelete(key)).Commit()
		if err == nil {
			done = r.Succeeded
		}
		return err
	})
	if err == nil && !done {
		err = fmt.Errorf("delete %s: %w (any more): list the leases again", key, ErrNoLease)
	}
	return err
}

// Expiries asks how long etcd leases still live, in parallel: they are one request each. One that is gone is left out.
func (c *Client) Expiries(ctx context.Context, ids []int64) (map[int64]time.Time, error) {
	const parallel = 16
	out := make(map[int64]time.Time, len(ids))
	var mu sync.Mutex
	var failed error
	var wg sync.WaitGroup
	for worker := range parallel {
		wg.Go(func() {
			for i := worker; i < len(ids); i += parallel {
				at, err := c.expiry(ctx, ids[i])
				mu.Lock()
				failed = errors.Join(failed, err)
				if err == nil && !at.IsZero() {
					out[ids[i]] = at
				}
				mu.Unlock()
				if err != nil {
					return
				}
			}
		})
	}
	wg.Wait()
	return out, failed
}

// expiry is when an etcd lease ends, the zero time when it has.
func (c *Client) expiry(ctx context.Context, id int64) (at time.Time, err error) {
	asked := time.Now()
	err = c.ask(ctx, fmt.Sprintf("ask for etcd lease %x", id), func(ctx context.Context, client *clientv3.Client) error {
		r, err := client.TimeToLive(ctx, clientv3.LeaseID(id))
		if err == nil && r.TTL > 0 {
			at = asked.Add(time.Duration(r.TTL) * time.Second)
		}
		return err
	})
	return at, err
}

// KeyOf is the key of a subnet as people write it: 172.16.28.0/24, two with a comma between for both families, or the key itself.
func KeyOf(text string) (string, error) {
	if _, _, err := lease.ParseKey(text); err == nil {
		return text, nil
	}
	l, err := ParseSubnets(text)
	if err != nil {
		return "", err
	}
	return lease.Key(l), nil
}

// ParseSubnets reads one subnet, or one of each family with a comma between.
func ParseSubnets(text string) (api.Lease, error) {
	var l api.Lease
	for part := range strings.SplitSeq(text, ",") {
		p, err := netip.ParsePrefix(strings.TrimSpace(part))
		if err != nil || p != p.Masked() {
			return l, fmt.Errorf("subnet %q: want a network without host bits, such as 172.16.28.0/24 (with IPv6: 172.16.28.0/24,fd00:5:1::/64)", part)
		}
		to := &l.Subnet
		if p.Addr().Is6() {
			to = &l.SubnetV6
		}
		if to.IsValid() {
			return l, fmt.Errorf("subnet %q: two of one family: give one of each", text)
		}
		*to = p
	}
	return l, nil
}
