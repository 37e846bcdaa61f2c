package nft

import (
	"golang.org/x/sys/unix"

	"weft/internal/nft"
)

// hash puts a hash of a field into the register of the word. The field goes through the registers from there on, which are free: those of
// the components that follow are written later.
func (e *ruleEncoder) hash(word int, k nft.Expr) {
	of := k.Field.Hashed()
	e.field(word, nft.Expr{Field: of})
	e.expr("hash", func() {
		e.b.u32(unix.NFTA_HASH_SREG, reg(word))
		e.b.u32(unix.NFTA_HASH_DREG, reg(word))
		e.b.u32(unix.NFTA_HASH_LEN, uint32(of.Type().Len()))
		e.b.u32(unix.NFTA_HASH_MODULUS, k.Mod)
		e.b.u32(unix.NFTA_HASH_SEED, k.Seed)
		e.b.u32(unix.NFTA_HASH_TYPE, unix.NFT_HASH_JENKINS)
	})
}

// hash decodes a hash of the field that was loaded last.
func (d *ruleDecoder) hash(e *expression) error {
	n := len(d.loads) - 1
	if n < 0 || d.mask != nil || d.mapped != nil {
		return errForeign
	}
	l := &d.loads[n]
	for _, f := range []nft.Field{nft.HashSaddr, nft.HashSaddr6} {
		of := f.Hashed()
		if (l.expr == nft.Expr{Field: of}) && e.word(unix.NFTA_HASH_SREG) == l.word && e.word(unix.NFTA_HASH_DREG) == l.word &&
			e.num(unix.NFTA_HASH_LEN) == uint32(of.Type().Len()) && e.num(unix.NFTA_HASH_TYPE) == unix.NFT_HASH_JENKINS &&
			e.num(unix.NFTA_HASH_OFFSET) == 0 && e.a[unix.NFTA_HASH_SEED] != nil && e.num(unix.NFTA_HASH_MODULUS) != 0 {
			l.expr = nft.Expr{Field: f, Mod: e.num(unix.NFTA_HASH_MODULUS), Seed: e.num(unix.NFTA_HASH_SEED)}
			return nil
		}
	}
	return errForeign
}
