package probe

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"weft/internal/netstate"
)

// settle is how long after a change the channel of Watch fires: who changes an address removes one and adds another.
const settle = 20 * time.Millisecond

// Watch returns a channel that receives, coalesced, when what Find looks at may have changed: a link, an address, a default route, and
// with a choice by Choice.CanReach any route that is not ours. It is closed when ctx ends. Watch must be called in the network namespace
// it is about.
func Watch(ctx context.Context, c Choice) (<-chan struct{}, error) {
	anyRoute := c.CanReach.IsValid()
	s, err := nl.Subscribe(unix.NETLINK_ROUTE, unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR,
		unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("watch the underlay: %w", err)
	}
	stop := context.AfterFunc(ctx, s.Close)
	seen := make(chan struct{}, 1)
	go func() {
		defer close(seen)
		defer func() {
			if stop() {
				s.Close()
			}
		}()
		for {
			msgs, _, err := s.Receive()
			hit := errors.Is(err, unix.ENOBUFS) // some were lost
			if err != nil && !hit {
				return
			}
			for _, m := range msgs {
				hit = hit || relevant(m.Header.Type, m.Data, anyRoute)
			}
			if hit {
				poke(seen)
			}
		}
	}()
	out := make(chan struct{}, 1)
	go func() {
		defer close(out)
		for range seen {
			<-time.NewTimer(settle).C
			poke(out)
		}
	}()
	return out, nil
}

// relevant leaves out routes to anywhere but everywhere, and with anyRoute only our own: there are many.
func relevant(typ uint16, data []byte, anyRoute bool) bool {
	if typ != unix.RTM_NEWROUTE && typ != unix.RTM_DELROUTE {
		return true
	}
	if len(data) < unix.SizeofRtMsg {
		return false
	}
	toAll, protocol := data[1] == 0, data[5] // rtm_dst_len, rtm_protocol
	return toAll || anyRoute && protocol != netstate.RouteProtocol
}

func poke(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}
