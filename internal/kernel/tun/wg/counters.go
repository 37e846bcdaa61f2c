package wg

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
)

// Stats says what user-space WireGuard refused since the engine was made. The kernel's driver does not tell.
type Stats struct {
	Refused []Refused `json:"refused,omitempty"`
}

// Refused says how many packets of a host were refused, and why.
type Refused struct {
	From    string `json:"from"` // underlay address of a peer, address and port of a stranger, or "" for what has no known sender
	Reason  string `json:"reason"`
	Packets uint64 `json:"packets"`
}

// The reasons.
const (
	ReasonSource    = "inner source outside the peer's subnet"
	ReasonHandshake = "handshake of a host that is no live peer"
	ReasonRepeated  = "handshake of a peer that crossed another one, or with another key"
	ReasonForeign   = "not a WireGuard message for this host"
)

// maxRefused bounds the memory that foreign packets can take.
const maxRefused = 256

type refusal struct{ from, reason string }

type counters struct {
	mu      sync.Mutex
	refused map[refusal]uint64
	names   map[string]netip.Addr // peers by the short text WireGuard's messages have for them
	// endpoints of peers: a handshake from there that is refused crossed one of ours, or is of an older key; WireGuard makes another.
	endpoints map[string]bool
}

// name learns the peers of all devices.
func (c *counters) name(all []config) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.names, c.endpoints = map[string]netip.Addr{}, map[string]bool{}
	for _, cfg := range all {
		for k, p := range cfg.peers {
			text := k.String()
			text = "peer(" + text[:4] + "…" + text[39:43] + ")"
			if _, ok := c.names[text]; !ok {
				c.names[text] = p.endpoint.Addr()
			}
			c.endpoints[p.endpoint.String()] = true
		}
	}
}

// notice counts by the messages of user-space WireGuard, which has no counters for what it refuses.
func (c *counters) notice(format string, args []any) {
	from := ""
	if len(args) > 0 {
		from = fmt.Sprint(args[0])
	}
	switch {
	case strings.Contains(format, "disallowed source address"):
		c.refuse(from, ReasonSource)
	case strings.HasPrefix(format, "Received invalid initiation message"), strings.HasPrefix(format, "Received invalid response message"):
		c.refuse(from, ReasonHandshake)
	case format == "Received message with unknown type", format == "Received packet with invalid mac1":
		c.refuse("", ReasonForeign)
	}
}

func (c *counters) refuse(from, reason string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.refused == nil {
		c.refused = map[refusal]uint64{}
	}
	if reason == ReasonHandshake && c.endpoints[from] {
		reason = ReasonRepeated
	}
	if a, ok := c.names[from]; ok {
		from = a.String()
	}
	r := refusal{from, reason}
	if _, ok := c.refused[r]; !ok && len(c.refused) >= maxRefused-4 {
		r.from = ""
	}
	c.refused[r]++
}

func (c *counters) stats() Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	var s Stats
	for r, n := range c.refused {
		s.Refused = append(s.Refused, Refused{From: r.from, Reason: r.reason, Packets: n})
	}
	slices.SortFunc(s.Refused, func(a, b Refused) int { return cmp.Or(cmp.Compare(a.From, b.From), cmp.Compare(a.Reason, b.Reason)) })
	return s
}
