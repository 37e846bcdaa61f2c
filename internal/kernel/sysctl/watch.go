package sysctl

import (
	"context"
	"errors"
	"fmt"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Watch returns a channel that receives, coalesced, when the kernel tells of changed parameters of an interface or of all: forwarding,
// rp_filter, proxy_arp and few others (RTNLGRP_IPV4_NETCONF, RTNLGRP_IPV6_NETCONF). Other parameters cause no events: look at them now
// and then. The channel is closed when ctx ends. Watch must be called in the network namespace it is about.
func Watch(ctx context.Context) (<-chan struct{}, error) {
	s, err := nl.Subscribe(unix.NETLINK_ROUTE, unix.RTNLGRP_IPV4_NETCONF, unix.RTNLGRP_IPV6_NETCONF)
	if err != nil {
		return nil, fmt.Errorf("watch parameters: %w", err)
	}
	stop := context.AfterFunc(ctx, s.Close)
	out := make(chan struct{}, 1)
	go func() {
		defer close(out)
		defer func() {
			if stop() {
				s.Close()
			}
		}()
		for {
			if _, _, err := s.Receive(); err != nil && !errors.Is(err, unix.ENOBUFS) {
				return
			}
			select {
			case out <- struct{}{}:
			default:
			}
		}
	}()
	return out, nil
}
