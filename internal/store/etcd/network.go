package etcd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"

	"weft/internal/lease"
	"weft/internal/lease/claim"
)

// NetworkConfig reads the network config: as it stands in the store, and parsed. ErrNoConfig says that there is none.
func (c *Client) NetworkConfig(ctx context.Context) ([]byte, lease.Config, error) {
	var raw []byte
	key := c.key(claim.ConfigKey)
	err := c.ask(ctx, "read "+key, func(ctx context.Context, client *clientv3.Client) error {
		r, err := client.Get(ctx, key)
		if err == nil && len(r.Kvs) > 0 {
			raw = r.Kvs[0].Value
		}
		return err
	})
	if err != nil {
		return nil, lease.Config{}, err
	}
	if raw == nil {
		return nil, lease.Config{}, fmt.Errorf("read %s: %w", key, ErrNoConfig)
	}
	config, _, err := lease.ParseConfig(raw)
	if err != nil {
		return raw, lease.Config{}, fmt.Errorf("read %s: %w", key, err)
	}
	return raw, config, nil
}

// Applied says what PutConfig did.
type Applied struct {
	Key      string
	Changed  bool     // false: the store held these very bytes
	Warnings []string // about the config
	Moving   []string // leases in use that have to move, with force
}

// configTries bounds how often PutConfig begins again because hosts came and went meanwhile.
const configTries = 20

// ErrInUse says that leases in use do not fit the new network config.
var ErrInUse = errors.New("leases in use do not fit the new network config")

// PutConfig checks a network config and writes it as it is. It refuses, with ErrInUse, a config that a lease in use does not
// fit, unless force is set: its host would have to give its pods other addresses. Nothing can come between check and write.
func (c *Client) PutConfig(ctx context.Context, data []byte, force bool) (Applied, error) {
	config, warnings, err := lease.ParseConfig(data)
	if err != nil {
		return Applied{}, err
	}
	out := Applied{Key: c.key(claim.ConfigKey), Warnings: warnings}
	for range configTries {
		s, err := c.List(ctx)
		if err != nil {
			return Applied{}, err
		}
		var old claim.Entry
		out.Moving = nil
		for _, e := range s.Entries {
			if e.Key == claim.ConfigKey {
				old = e
			} else if why := misfit(config, e); why != "" {
				out.Moving = append(out.Moving, why)
			}
		}
		if old.Modified != 0 && bytes.Equal(old.Value, data) {
			return out, nil
		}
		if len(out.Moving) > 0 && !force {
			return Applied{}, fmt.Errorf("write %s: %w: %s: delete them or use --force", out.Key, ErrInUse, few(out.Moving))
		}
		done, err := c.SwapConfig(ctx, data, old.Modified, s.Revision)
		if err != nil {
			return Applied{}, err
		}
		if done {
			out.Changed = true
			return out, nil
		}
	}
	return Applied{}, fmt.Errorf("write %s: the leases changed %d times meanwhile: try again", out.Key, configTries)
}

// Misfits lists the leases in use that a config does not fit: their hosts would have to give their pods other addresses.
func Misfits(config lease.Config, s claim.Snapshot) []string {
	var all []string
	for _, e := range s.Entries {
		if why := misfit(config, e); why != "" {
			all = append(all, why)
		}
	}
	return all
}

// misfit says why a lease of the store does not fit a config, "" when it does or holds nothing.
func misfit(config lease.Config, e claim.Entry) string {
	key, ok := strings.CutPrefix(e.Key, claim.Subnets)
	if !ok {
		return ""
	}
	v4, v6, err := lease.ParseKey(key)
	if err != nil {
		return ""
	}
	for i, p := range []netip.Prefix{v4, v6} {
		r := config.Range(i == 1)
		if p.IsValid() != r.Network.IsValid() {
			return fmt.Sprintf("%s (address families)", key)
		}
		if p.IsValid() && r.Fits(p) != nil {
			return fmt.Sprintf("%s (%v)", key, r.Fits(p))
		}
	}
	return ""
}

// few lists at most three.
func few(all []string) string {
	if len(all) > 3 {
		return fmt.Sprintf("%s and %d more", strings.Join(all[:3], ", "), len(all)-3)
	}
	return strings.Join(all, ", ")
}

// ConfigName is the key of the network config.
func (c *Client) ConfigName() string { return c.key(claim.ConfigKey) }

// SwapConfig writes the config if it was last modified at that revision (0: there is none) and no lease was created since the other one.
// done is false when something came between.
func (c *Client) SwapConfig(ctx context.Context, data []byte, modified, revision int64) (done bool, err error) {
	key, subnets := c.key(claim.ConfigKey), c.key(claim.Subnets)
	err = c.ask(ctx, "write "+key, func(ctx context.Context, client *clientv3.Client) error {
		r, err := client.Txn(ctx).If(
			clientv3.Compare(clientv3.ModRevision(key), "=", modified),
			clientv3.Compare(clientv3.CreateRevision(subnets), "<", revision+1).WithPrefix(),
		).Then(clientv3.OpPut(key, string(data))).Commit()
		if err == nil {
			done = r.Succeeded
		}
		return err
	})
	return done, err
}
