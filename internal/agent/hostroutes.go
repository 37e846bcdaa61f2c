package agent

import (
	"context"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"weft/internal/agent/loop"
	"weft/internal/kernel/probe"
	"weft/internal/lease/claim"
	"weft/internal/netstate"
	"weft/internal/overlay/vxlan"
	"weft/internal/overlay/wireguard"
)

// hostRoutes lists the routes the host has of its own. The overlays' and the bridges' of pods are none, and neither is one that somebody put
// in the place of ours: that is an injury, and the lease that it leads to must not be given up before it is repaired.
func (a *agent) hostRoutes() ([]claim.HostRoute, error) {
	all, err := probe.HostRoutes(netstate.RouteProtocol, func(r probe.Route) bool {
		return strings.HasPrefix(r.Dev, "flannel") || vxlan.StandIn(r.Dev) || strings.HasPrefix(r.Dev, wireguard.StandIn) ||
			r.Dev != "" && r.Dev == a.cfg.Bridge || r.Dev == "cni0" || r.Dev == "docker0" ||
			a.data != nil && a.data.Wants(netstate.Route{Dst: r.Dst, Metric: r.Metric})
	})
	if err != nil {
		return nil, err
	}
	out := make([]claim.HostRoute, len(all))
	for i, r := range all {
		out[i] = claim.HostRoute{Dst: r.Dst, Via: r.Via, Dev: r.Dev}
	}
	return out, nil
}

// startRoutes follows the host's routes: a lease that was refused because of one is taken up when the route goes, and the other way round.
func (a *agent) startRoutes(ctx context.Context, g *errgroup.Group) error {
	changed, err := probe.WatchRoutes(ctx, netstate.RouteProtocol)
	if err != nil {
		return err
	}
	var last []claim.HostRoute
	known := false
	l := loop.Loop{Name: "routes", Every: loop.FullCheck, Log: a.log, Triggers: []loop.Trigger{loop.On(changed, loop.ByKernel)}}
	l.Step = func(context.Context, loop.Cause) (loop.Work, error) {
		now, err := a.hostRoutes()
		if err != nil || known && slices.Equal(now, last) {
			return loop.Work{}, err
		}
		last, known = now, true
		a.avoidRoutes(now)
		return loop.Work{}, nil
	}
	g.Go(func() error { return l.Run(ctx) })
	return nil
}
