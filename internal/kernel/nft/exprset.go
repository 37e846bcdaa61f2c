package nft

import (
	"golang.org/x/sys/unix"

	"weft/internal/nft"
)

func (e *ruleEncoder) setMark(s nft.SetMark) {
	if s.Mask == allBits {
		e.immediate(0, word32(s.Value))
	} else {
		e.meta(0, unix.NFT_META_MARK)
		e.bitwise(0, word32(^s.Mask), word32(s.Value))
	}
	e.expr("meta", func() {
		e.b.u32(unix.NFTA_META_SREG, reg(0))
		e.b.u32(unix.NFTA_META_KEY, unix.NFT_META_MARK)
	})
}

func (e *ruleEncoder) update(u nft.Update) {
	for _, k := range u.Data {
		e.check(k.Field)
	}
	n := e.load(0, u.Key)
	data := len(u.Data) > 0
	if u.To.IsValid() {
		data = true
		e.immediate(n, u.To.Addr().AsSlice())
		e.immediate(n+u.To.Addr().BitLen()/32, []byte{byte(u.To.Port() >> 8), byte(u.To.Port())})
	} else {
		e.load(n, u.Data)
	}
	e.expr("dynset", func() {
		e.b.str(unix.NFTA_DYNSET_SET_NAME, u.Set)
		e.b.u32(unix.NFTA_DYNSET_OP, unix.NFT_DYNSET_OP_UPDATE)
		e.b.u32(unix.NFTA_DYNSET_SREG_KEY, reg(0))
		if data {
			e.b.u32(unix.NFTA_DYNSET_SREG_DATA, reg(n))
		}
		if u.Timeout != 0 {
			e.b.u64(unix.NFTA_DYNSET_TIMEOUT, uint64(u.Timeout)*1000)
		}
	})
}
