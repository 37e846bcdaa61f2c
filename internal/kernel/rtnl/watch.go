package rtnl

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"weft/internal/kernel/rtnl/wire"
	"weft/internal/netstate"
)

// settle is how long after an event the channel fires, so that a burst is looked at once.
const settle = 2 * time.Millisecond

// Watch returns a channel that receives, coalesced, when something of ours was changed by others: anything that contradicts what the last
// Read saw and Apply did since, on our links, those they lie on, or in the place of a wanted object. When the kernel had to drop events, it
// receives too. The channel is closed when ctx ends or the socket fails; subscribe before the first Read, so that nothing is missed.
//
// Watch must be called in the handle's network namespace.
func (h *Handle) Watch(ctx context.Context) (<-chan struct{}, error) {
	queue := 0
	if h.untrusted {
		queue = untrustedQueue
	}
	conn, err := wire.Subscribe(queue, unix.RTNLGRP_LINK, unix.RTNLGRP_NEIGH, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR,
		unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE, unix.RTNLGRP_NEXTHOP)
	if err != nil {
		return nil, fmt.Errorf("watch rtnetlink: %w", err)
	}
	out := make(chan struct{}, 1)
	dirty := make(chan struct{}, 1)
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	go func() {
		defer close(dirty)
		defer stop()
		defer conn.Close()
		h.receive(conn, dirty)
	}()
	go coalesce(dirty, out)
	return out, nil
}

// What is read of an untrusted namespace's events: the kernel drops the rest.
const (
	untrustedQueue = 128 << 10 // bytes
	untrustedBurst = 256       // datagrams
	untrustedRest  = 50 * time.Millisecond
)

// receive puts a token into dirty for each relevant event, until the socket is closed.
func (h *Handle) receive(conn *wire.Conn, dirty chan<- struct{}) {
	begun, n := time.Now(), 0
	for {
		if n++; h.untrusted && n >= untrustedBurst {
			if busy := time.Since(begun); busy < untrustedRest {
				<-time.NewTimer(untrustedRest - busy).C
			}
			begun, n = time.Now(), 0
		}
		msgs, err := conn.Receive()
		switch {
		case errors.Is(err, wire.ErrMalformed):
			h.lost()
			poke(dirty)
		case errors.Is(err, unix.ENOBUFS):
			if conn.Drain() != nil {
				return
			}
			h.lost()
			poke(dirty)
		case err != nil:
			return
		case h.news(msgs):
			poke(dirty)
		}
	}
}

// coalesce passes tokens on, settle after the first of a burst.
func coalesce(dirty <-chan struct{}, out chan<- struct{}) {
	defer close(out)
	for range dirty {
		timer := time.NewTimer(settle)
		<-timer.C
		poke(out)
	}
}

func poke(ch chan<- struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// news reports whether a message contradicts what we know. It waits for a Read or Apply under way, so that our own changes are known; when
// one undoes another before its events were looked at, these count as news, which costs no more than a look.
func (h *Handle) news(msgs []wire.Message) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	hit := false
	for _, m := range msgs {
		if h.isNews(m) {
			h.injuries.take(h, m)
			hit = true
		}
	}
	return hit
}

func (h *Handle) name(index int) (string, bool) {
	n, ok := h.indexes[index]
	return n, ok
}

func (h *Handle) isNews(m wire.Message) bool {
	switch m.Type {
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		return h.linkNews(m)
	case unix.RTM_NEWNEXTHOP, unix.RTM_DELNEXTHOP:
		return h.nexthopNews(m)
	case unix.RTM_NEWADDR, unix.RTM_DELADDR:
		return h.addrNews(m)
	case unix.RTM_NEWNEIGH, unix.RTM_DELNEIGH:
		return h.neighNews(m)
	case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
		r, ok := decodeRoute(m, h.name)
		if !ok {
			return false
		}
		_, wanted := h.wanted.Get(netstate.IDOf(r))
		return (r.Proto == 0 || wanted) && h.contradicts(r, m.Type == unix.RTM_DELROUTE)
	}
	return false
}

func (h *Handle) addrNews(m wire.Message) bool {
	a, ok := decodeAddr(m, h.name)
	if _, wanted := h.wanted.Get(netstate.IDOf(a)); ok && ownDoing(a) && !wanted {
		return false
	}
	return ok && h.interest[a.Dev] && h.contradicts(a, m.Type == unix.RTM_DELADDR)
}

func (h *Handle) neighNews(m wire.Message) bool {
	if m.Type == unix.RTM_NEWNEIGH {
		if o, ok := decodeNeigh(m, h.name, false); ok {
			_, wanted := h.wanted.Get(netstate.IDOf(o))
			return (h.ours[o.On()] || wanted) && h.contradicts(o, false)
		}
		// No longer permanent: as good as deleted.
	}
	o, ok := decodeNeigh(m, h.name, true)
	return ok && h.contradicts(o, true)
}

// contradicts reports whether the object, now there or gone, is not as known.
func (h *Handle) contradicts(o netstate.Object, gone bool) bool {
	known, ok := h.known.Get(netstate.IDOf(o))
	if gone {
		if r, is := o.(netstate.Route); is && ok {
			return known.String() == r.String() // another one with the same key may have gone
		}
		return ok
	}
	return !ok || known.String() != o.String()
}

// linkNews looks at a link event. It also learns indexes of new links, so that events of what is put on them are understood.
func (h *Handle) linkNews(m wire.Message) bool {
	if len(m.Data) > 0 && m.Data[0] != unix.AF_UNSPEC {
		return false // bridge port and IPv6 details of a link
	}
	l, ok := decodeLink(m)
	if !ok {
		return false
	}
	if m.Type == unix.RTM_DELLINK {
		delete(h.indexes, l.index)
		return h.interest[l.Name] && h.known.Len() > 0 && h.there(l.Name)
	}
	h.indexes[l.index] = l.Name
	if !h.interest[l.Name] && !l.Owned() {
		return false
	}
	o, ok := h.known.Get(netstate.ID{Kind: netstate.KindLink, Key: l.Name})
	k, isLink := o.(netstate.Link)
	if !ok || !isLink {
		return true // a link that ours lie on, or a new one of ours
	}
	l.Master = h.indexes[l.master]
	if l.master == 0 {
		l.Master = ""
	}
	l.VXLAN.Dev = h.indexes[l.lower]
	if l.VXLAN.Dev == "" && l.lower != 0 {
		l.VXLAN.Dev = k.VXLAN.Dev // a device that is not known by name is no reason
	}
	return differs(l.Link, k)
}

// differs reports whether a link is not as known, in what an event tells of it; what is not known is left open.
func differs(l, known netstate.Link) bool {
	return l.Up != known.Up || l.Alias != known.Alias || l.Master != known.Master ||
		(known.MTU != 0 && l.MTU != known.MTU) || (known.MAC != "" && l.MAC != known.MAC) ||
		(known.Master != "" && l.Port != known.Port) || (known.Type == netstate.TypeVXLAN && l.Type == known.Type && l.VXLAN != known.VXLAN)
}

// there reports whether the link is known, or one that ours lie on.
func (h *Handle) there(name string) bool {
	_, ours := h.known.Get(netstate.ID{Kind: netstate.KindLink, Key: name})
	_, wanted := h.wanted.Get(netstate.ID{Kind: netstate.KindLink, Key: name})
	return ours || !wanted
}
