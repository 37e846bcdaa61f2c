// Package conntrack reads and deletes entries of the kernel's connection tracking table: the flows of a protocol without connections
// stay translated to an endpoint that is gone until their entry goes, since a rule is asked for a flow's first packet only.
//
// Floor 3, edges.
package conntrack

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

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

// Attributes of linux/netfilter/nfnetlink_conntrack.h.
const (
	ctaTupleOrig, ctaTupleReply = 1, 2
	ctaID, ctaZone, ctaFilter   = 12, 18, 25

	ctaTupleIP, ctaTupleProto      = 1, 2
	ctaSrc4, ctaDst4               = 1, 2
	ctaSrc6, ctaDst6               = 3, 4
	ctaProtoNum, ctaSport, ctaDprt = 1, 2, 3

	ctaFilterOrigFlags = 1
	filterProtoNum     = 1 << 3 // CTA_FILTER_F_CTA_PROTO_NUM

	messageGet, messageDelete = 1, 2 // IPCTNL_MSG_CT_GET, IPCTNL_MSG_CT_DELETE
)

// List reads the flows of one family (unix.AF_INET, unix.AF_INET6) and transport protocol (unix.IPPROTO_UDP, ...) in the caller's network
// namespace. The kernel chooses them (CTA_FILTER, Linux 5.8); an older one gives all, and the others are left out here.
func List(family, protocol uint8) ([]Flow, error) {
	r := request(messageGet, family, unix.NLM_F_DUMP)
	proto := nl.NewRtAttr(ctaTupleProto|unix.NLA_F_NESTED, nil)
	proto.AddRtAttr(ctaProtoNum, []byte{protocol})
	tuple := nl.NewRtAttr(ctaTupleOrig|unix.NLA_F_NESTED, nil)
	tuple.AddChild(proto)
	r.AddData(tuple)
	filter := nl.NewRtAttr(ctaFilter|unix.NLA_F_NESTED, nil)
	filter.AddRtAttr(ctaFilterOrigFlags, nl.Uint32Attr(filterProtoNum))
	r.AddData(filter)
	all, err := r.Execute(unix.NETLINK_NETFILTER, 0)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) {
		all, err = request(messageGet, family, unix.NLM_F_DUMP).Execute(unix.NETLINK_NETFILTER, 0)
	}
	if err != nil {
		return nil, fmt.Errorf("list connection tracking: %w", err)
	}
	out := make([]Flow, 0, len(all))
	for _, m := range all {
		if f, p, ok := parse(m); ok && p == protocol {
			out = append(out, f)
		}
	}
	return out, nil
}

// Delete removes the flows and returns how many were there. One that is gone already is no error.
func Delete(flows []Flow) (int, error) {
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
