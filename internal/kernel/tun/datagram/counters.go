package datagram

import (
	"cmp"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
)

// counters are the relay's own; see Stats.
type counters struct {
	sentPackets, sentTrains, receivedPackets, receivedTrains, noPeer, expired, malformed, lost atomic.Uint64

	mu      sync.Mutex
	refused map[refusal]uint64
}

// Stats counts packets since the engine was made.
type Stats struct {
	SentPackets     uint64 `json:"sentPackets"`
	SentTrains      uint64 `json:"sentTrains"` // datagrams or trains of them given to the kernel
	ReceivedPackets uint64 `json:"receivedPackets"`
	ReceivedTrains  uint64 `json:"receivedTrains"`
	NoPeer          uint64 `json:"noPeer"`    // to a subnet that nobody holds
	Expired         uint64 `json:"expired"`   // TTL or hop limit at its end
	Malformed       uint64 `json:"malformed"` // not an IP packet
	Lost            uint64 `json:"lost"`      // refused by the kernel
	// Refused lists who was refused by the edge check, at most maxRefused entries.
	Refused []Refused `json:"refused,omitempty"`
}

// Refused says how many packets of a host were refused, and why.
type Refused struct {
	From    netip.Addr `json:"from"` // underlay address; the zero Addr stands for all others
	Reason  string     `json:"reason"`
	Packets uint64     `json:"packets"`
}

// The reasons.
const (
	ReasonNoPeer = "not a live peer"
	ReasonSource = "inner source outside the peer's subnet"
)

type refusal struct {
	from   netip.Addr
	reason string
}

// maxRefused bounds the memory that foreign packets can take.
const maxRefused = 256

func (c *counters) refuse(from netip.Addr, reason string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.refused == nil {
		c.refused = map[refusal]uint64{}
	}
	r := refusal{from, reason}
	if _, ok := c.refused[r]; !ok && len(c.refused) >= maxRefused-2 {
		r.from = netip.Addr{}
	}
	c.refused[r]++
}

func (c *counters) stats() Stats {
	s := Stats{
		SentPackets: c.sentPackets.Load(), SentTrains: c.sentTrains.Load(),
		ReceivedPackets: c.receivedPackets.Load(), ReceivedTrains: c.receivedTrains.Load(),
		NoPeer: c.noPeer.Load(), Expired: c.expired.Load(), Malformed: c.malformed.Load(), Lost: c.lost.Load(),
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for r, n := range c.refused {
		s.Refused = append(s.Refused, Refused{From: r.from, Reason: r.reason, Packets: n})
	}
	slices.SortFunc(s.Refused, func(a, b Refused) int { return cmp.Or(a.From.Compare(b.From), cmp.Compare(a.Reason, b.Reason)) })
	return s
}
