package nft

import (
	"golang.org/x/sys/unix"

	"weft/internal/nft"
)

// keepSource encodes a source NAT to the address that the packet has.
func (e *ruleEncoder) keepSource(s nft.KeepSource) {
	field, family := nft.IPSaddr, uint32(unix.NFPROTO_IPV4)
	if s.V6 {
		field, family = nft.IP6Saddr, unix.NFPROTO_IPV6
	}
	e.load(0, []nft.Expr{{Field: field}})
	e.expr("nat", func() {
		e.b.u32(unix.NFTA_NAT_TYPE, unix.NFT_NAT_SNAT)
		e.b.u32(unix.NFTA_NAT_FAMILY, family)
		e.b.u32(unix.NFTA_NAT_REG_ADDR_MIN, reg(0))
	})
}

// keepSource decodes the same; every other source NAT is foreign.
func (d *ruleDecoder) keepSource(e *expression, v6 bool) error {
	const addr = unix.NF_NAT_RANGE_MAP_IPS // the kernel sets it itself
	field := nft.IPSaddr
	if v6 {
		field = nft.IP6Saddr
	}
	last := unix.NFTA_NAT_REG_ADDR_MAX
	if e.word(unix.NFTA_NAT_REG_ADDR_MIN) != 0 || e.a[last] != nil && e.word(last) != 0 || e.a[unix.NFTA_NAT_REG_PROTO_MIN] != nil ||
		e.a[unix.NFTA_NAT_REG_PROTO_MAX] != nil || e.num(unix.NFTA_NAT_FLAGS)&^addr != 0 ||
		d.mapped != nil || d.mask != nil || len(d.values) > 0 || len(d.loads) != 1 || d.loads[0] != (load{0, nft.Expr{Field: field}}) {
		return errForeign
	}
	return d.emit(nft.KeepSource{V6: v6}, []nft.Expr{{Field: field}})
}
