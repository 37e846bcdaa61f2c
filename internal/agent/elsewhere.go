package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"time"

	"weft/internal/agent/tunnels"
	"weft/internal/api"
	"weft/internal/lease"
	"weft/internal/lease/claim"
	"weft/internal/overlay"
	"weft/internal/store/etcd"
)

// What a host remembers of itself over a reboot, its VTEPs' MACs and its WireGuard key, other leases may bear: the one the host had at an
// earlier address, which lives on for a day, or that of a host whose disk it was copied from. Two hosts with one of them are no good: the
// others send to one of the two.

// elsewhere returns a lease of another host, or of this one at another address, for which has says yes.
func (a *agent) elsewhere(has func(api.Lease) bool) (api.Lease, bool) {
	all := a.foreign
	if a.leases != nil {
		own, _ := a.leases.Own()
		all = slices.DeleteFunc(a.leases.Leases(), func(l api.Lease) bool { return l.Subnet == own.Subnet && l.SubnetV6 == own.SubnetV6 })
	}
	if i := slices.IndexFunc(all, has); i >= 0 {
		return all[i], true
	}
	return api.Lease{}, false
}

// announceKey adds the node's public key and ports to what it tells the others. A key that another lease has is replaced at the start.
func (a *agent) announceKey(l api.Lease, o overlay.Options) (api.Lease, error) {
	l, err := tunnels.AnnounceKey(l, o, a.cfg.StateDir)
	if err != nil || a.leases != nil {
		return l, err
	}
	other, ok := a.elsewhere(func(x api.Lease) bool { return x.WGKey == l.WGKey })
	if !ok {
		return l, nil
	}
	a.log.Warn("the WireGuard key is in another lease, of a host that this one was copied from or of an earlier address of this one: a new one is made",
		"key", l.WGKey, "lease", lease.Key(other))
	if err := tunnels.NewKey(a.cfg.StateDir); err != nil {
		return l, err
	}
	return tunnels.AnnounceKey(l, o, a.cfg.StateDir)
}

// meetLeases remembers the leases in etcd that are not this host's: neither with its public address nor of the subnet that it held before.
func (a *agent) meetLeases(ctx context.Context, kv *etcd.Client) error {
	s, err := kv.List(ctx)
	if err != nil {
		a.log.Warn("whether other leases have what this host remembers of itself is not known", "err", err)
		return nil
	}
	before, err := a.before()
	if err != nil {
		return err
	}
	f := a.settings.Facts()
	var view claim.View
	view.Reset(s, time.Time{})
	for _, r := range view.Records() {
		l := r.Lease
		mine := f.Holds(l.PublicIP) || f.Holds(l.PublicIPv6) || l.Subnet.IsValid() && l.Subnet == before.Subnet ||
			l.SubnetV6.IsValid() && l.SubnetV6 == before.IPv6Subnet
		if r.Refused == "" && !mine {
			a.foreign = append(a.foreign, l)
		}
	}
	return nil
}

// before is what the host held before, as the file for other programs says; nothing when there is none.
func (a *agent) before() (lease.SubnetEnv, error) {
	text, err := os.ReadFile(a.cfg.SubnetFile)
	if errors.Is(err, fs.ErrNotExist) {
		return lease.SubnetEnv{}, nil
	}
	if err != nil {
		return lease.SubnetEnv{}, fmt.Errorf("--subnet-file: %w", err)
	}
	e, err := lease.ParseSubnetEnv(text)
	if err != nil {
		a.log.Warn("the earlier subnet is not known", "file", a.cfg.SubnetFile, "err", err)
	}
	return e, nil
}

// meetNodes remembers the leases of the other nodes, where they are known already.
func (a *agent) meetNodes() {
	snap, known := a.cluster()
	if !known {
		return
	}
	for _, n := range snap.Nodes {
		if l, err := lease.FromNode(n, a.cfg.AnnotationPrefix); err == nil && n.Name != a.cfg.NodeName {
			a.foreign = append(a.foreign, l)
		}
	}
}
