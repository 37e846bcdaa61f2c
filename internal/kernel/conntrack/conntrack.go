// Package conntrack reads and deletes entries of the kernel's connection tracking table: the flows of a protocol without connections
// stay translated to an endpoint that is gone until their entry goes, since a rule is asked for a flow's first packet only.
//
// Floor 3, edges.
package conntrack

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Flow is one entry of the table.
type Flow struct {
	// From and To are the addresses of the first packet as its sender wrote them.
	From, To netip.AddrPort
	// Answerer is who answers: the destination after translation, To when there is none.
	Answerer netip.AddrPort
	// Zone is the table's zone, 0 for most.
	Zone uint16

	id    []byte // CTA_ID: another entry that has the same addresses later has another one
	tuple []byte // CTA_TUPLE_ORIG as the kernel wrote it
}

// Translated reports whether the flow's destination was changed.
func (f Flow) Translated() bool { return f.To != f.Answerer }

// Query chooses flows of one family and protocol.
type Query struct {
	Family   uint8 // unix.AF_INET, unix.AF_INET6
	Protocol uint8 // unix.IPPROTO_UDP, ...
	// To is where the first packet was sent, one of these; without address any address, without port any port. None: anywhere.
	To []netip.AddrPort
}

// Attributes of linux/netfilter/nfnetlink_conntrack.h.
const (
	ctaTupleOrig, ctaTupleReply = 1, 2
	ctaID, ctaZone, ctaFilter   = 12, 18, 25

	ctaTupleIP, ctaTupleProto      = 1, 2
	ctaSrc4, ctaDst4               = 1, 2
	ctaSrc6, ctaDst6               = 3, 4
	ctaProtoNum, ctaSport, ctaDprt = 1, 2, 3

	ctaFilterOrigFlags = 1
	// CTA_FILTER_F_CTA_IP_DST, CTA_FILTER_F_CTA_PROTO_NUM, CTA_FILTER_F_CTA_PROTO_DST_PORT
	filterDst, filterProtoNum, filterDport = 1 << 1, 1 << 3, 1 << 5

	messageGet, messageDelete = 1, 2 // IPCTNL_MSG_CT_GET, IPCTNL_MSG_CT_DELETE
)

// Table reads the tables of the caller's network namespace. The zero Table is ready; its methods may be called from several goroutines.
type Table struct {
	mu   sync.Mutex
	seen map[[2]uint8]int // flows of a family and protocol when all of them were read last
}

// List reads the flows that the query chooses. The kernel chooses them (CTA_FILTER, Linux 5.8): that costs it a walk through its table and
// us what there is to see. It compares with one destination in a walk, so for more of them than that is worth, and from an older
// kernel, all flows are read and chosen here.
func (t *Table) List(q Query) ([]Flow, error) {
	var out []Flow
	for _, to := range t.split(q) {
		flows, all, err := q.walk(to)
		if err != nil {
			return nil, fmt.Errorf("list connection tracking: %w", err)
		}
		out = append(out, flows...)
		if to == (netip.AddrPort{}) {
			t.mu.Lock()
			if t.seen == nil {
				t.seen = map[[2]uint8]int{}
			}
			t.seen[[2]uint8{q.Family, q.Protocol}] = all
			t.mu.Unlock()
		}
	}
	return out, nil
}

// Walks is how many times List would go through the kernel's table for a query.
func (t *Table) Walks(q Query) int { return len(t.split(q)) }

// worth is how many entries the kernel walks over in the time that one takes to be read, measured by BenchmarkList.
const worth = 40

func (t *Table) split(q Query) []netip.AddrPort {
	entries, buckets := size()
	t.mu.Lock()
	seen, ok := t.seen[[2]uint8{q.Family, q.Protocol}]
	t.mu.Unlock()
	if !ok || seen > entries {
		seen = entries
	}
	return q.walks(seen, entries+buckets)
}

// walks are the destinations to ask for in a walk over so many buckets and entries each, where there are so many flows to read; the zero
// AddrPort is all of them in one.
func (q Query) walks(flows, steps int) []netip.AddrPort {
	all := []netip.AddrPort{{}}
	if len(q.To) == 0 || (len(q.To)-1)*steps > worth*flows {
		return all
	}
	for i, a := range q.To {
		for _, b := range q.To[:i] { // none shall be listed twice
			if matches(a, b) || matches(b, a) {
				return all
			}
		}
	}
	return q.To
}

// size reads how many entries the namespace has, and the buckets of the host's table; 1 each when nobody knows.
func size() (entries, buckets int) {
	read := func(name string) int {
		text, err := os.ReadFile("/proc/sys/net/netfilter/nf_conntrack_" + name)
		n, err2 := strconv.Atoi(strings.TrimSpace(string(text)))
		if err != nil || err2 != nil {
			return 1
		}
		return n
	}
	return read("count"), read("buckets")
}

// matches reports whether a destination is one of those wanted; what wanted lacks matches anything.
func matches(wanted, to netip.AddrPort) bool {
	return (!wanted.Addr().IsValid() || wanted.Addr() == to.Addr()) && (wanted.Port() == 0 || wanted.Port() == to.Port())
}

// walk reads the flows to one destination, or to all of the query's. The second result is how many the kernel told of.
func (q Query) walk(to netip.AddrPort) ([]Flow, int, error) {
	wanted := q.wanted(to)
	out, all, err := read(q.request(to), wanted)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) {
		out, all, err = read(request(messageGet, q.Family, unix.NLM_F_DUMP), wanted)
	}
	return out, all, err
}

// wanted tells which flows of an answer to keep.
func (q Query) wanted(to netip.AddrPort) func(Flow, uint8) bool {
	some := make(map[netip.AddrPort]bool, len(q.To))
	for _, x := range q.To {
		some[x] = true
	}
	if to != (netip.AddrPort{}) {
		some = map[netip.AddrPort]bool{to: true}
	}
	return func(f Flow, protocol uint8) bool {
		a, p := f.To.Addr(), f.To.Port()
		return protocol == q.Protocol && (len(some) == 0 || some[f.To] || some[netip.AddrPortFrom(a, 0)] || some[netip.AddrPortFrom(netip.Addr{}, p)])
	}
}

// request asks for the flows to one destination, the zero one being any, as far as the kernel can choose them.
func (q Query) request(to netip.AddrPort) *nl.NetlinkRequest {
	flags := uint32(filterProtoNum)
	tuple := nl.NewRtAttr(ctaTupleOrig|unix.NLA_F_NESTED, nil)
	if a := to.Addr(); a.IsValid() {
		flags |= filterDst
		typ := ctaDst4
		if a.Is6() {
			typ = ctaDst6
		}
		tuple.AddRtAttr(ctaTupleIP|unix.NLA_F_NESTED, nil).AddRtAttr(typ, a.AsSlice())
	}
	proto := tuple.AddRtAttr(ctaTupleProto|unix.NLA_F_NESTED, nil)
	proto.AddRtAttr(ctaProtoNum, []byte{q.Protocol})
	if p := to.Port(); p != 0 {
		flags |= filterDport
		proto.AddRtAttr(ctaDprt, binary.BigEndian.AppendUint16(nil, p))
	}
	r := request(messageGet, q.Family, unix.NLM_F_DUMP)
	r.AddData(tuple)
	filter := nl.NewRtAttr(ctaFilter|unix.NLA_F_NESTED, nil)
	filter.AddRtAttr(ctaFilterOrigFlags, nl.Uint32Attr(flags))
	r.AddData(filter)
	return r
}

// read reads the answer to a request and keeps what is wanted of all that is told.
func read(r *nl.NetlinkRequest, wanted func(Flow, uint8) bool) (out []Flow, all int, err error) {
	err = r.ExecuteIter(unix.NETLINK_NETFILTER, 0, func(m []byte) bool {
		all++
		if f, p, ok := parse(m); ok && wanted(f, p) {
			// Copies: what is kept would hold the whole buffer it came in.
			f.id, f.tuple = bytes.Clone(f.id), bytes.Clone(f.tuple)
			out = append(out, f)
		}
		return true
	})
	return out, all, err
}

// Delete removes the flows and returns how many were there. One that is gone already is no error.
func (t *Table) Delete(flows []Flow) (int, error) {
	n := 0
	var errs []error
	for _, f := range flows {
		family := uint8(unix.AF_INET)
		if f.To.Addr().Is6() {
			family = unix.AF_INET6
		}
		r := request(messageDelete, family, unix.NLM_F_ACK)
		r.AddData(nl.NewRtAttr(ctaTupleOrig|unix.NLA_F_NESTED, f.tuple))
		if f.Zone != 0 {
			r.AddData(nl.NewRtAttr(ctaZone, binary.BigEndian.AppendUint16(nil, f.Zone)))
		}
		if f.id != nil {
			r.AddData(nl.NewRtAttr(ctaID, f.id))
		}
		switch _, err := r.Execute(unix.NETLINK_NETFILTER, 0); {
		case err == nil:
			n++
		case !errors.Is(err, unix.ENOENT):
			errs = append(errs, fmt.Errorf("delete connection tracking of %s to %s: %w", f.From, f.To, err))
		}
	}
	return n, errors.Join(errs...)
}

func request(message int, family uint8, flags int) *nl.NetlinkRequest {
	r := nl.NewNetlinkRequest(unix.NFNL_SUBSYS_CTNETLINK<<8|message, flags)
	r.AddData(&nl.Nfgenmsg{NfgenFamily: family, Version: nl.NFNETLINK_V0})
	return r
}
