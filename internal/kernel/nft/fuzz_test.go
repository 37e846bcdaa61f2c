package nft

import (
	"testing"

	"weft/internal/nft"
)

// FuzzDecode gives the decoders bytes that no kernel sends.
func FuzzDecode(f *testing.F) {
	var b buf
	e := ruleEncoder{b: &b, family: nft.INet}
	for _, text := range []string{
		`ip saddr 10.0.0.0/8 meta mark & 0x00000001 == 0x00000001 dnat ip to ip daddr . th dport . numgen random mod 3 map @m`,
		`update @s { ip6 saddr timeout 3s : fd00::1 . 80 } meta mark set meta mark | 0x00000003 reject with tcp reset`,
		`ip saddr 10.0.0.0/8 snat ip to ip saddr`,
		`iifname "eth*" ct state new ip daddr vmap @v goto c`,
	} {
		r, err := nft.ParseRule(text)
		if err != nil {
			f.Fatal(err)
		}
		for _, s := range r.Statements {
			if err := e.statement(s); err != nil {
				f.Fatal(err)
			}
		}
	}
	f.Add([]byte(b))
	f.Fuzz(func(t *testing.T, data []byte) {
		if all, err := parseExpressions(data); err == nil {
			for _, s := range statements(nft.INet, all) {
				if s.String() == "" {
					t.Errorf("a statement without text: %#v", s)
				}
			}
		}
		if a, _, err := parse(data); err == nil {
			_, _ = decodeChain(&a), decodeSet(&a)
		}
		_ = decodeComment(data)
		for _, s := range []nft.Set{
			{Key: []nft.Type{nft.IPv4Addr}, Interval: true},
			{Key: []nft.Type{nft.IPv4Addr, nft.InetService}, Interval: true, Data: []nft.Type{nft.InetService}},
			{Key: []nft.Type{nft.InetProto}, Verdicts: true},
		} {
			r := elementReader{set: &s}
			if r.element(data) == nil {
				for _, e := range r.result() {
					_ = s.ElementText(e)
				}
			}
		}
		_ = split(data, func(m message) error {
			_ = refused(m)
			w := watcher{own: 1, tables: []watched{{family: 1, table: nft.TableName}}}
			_ = w.table(m)
			return nil
		})
	})
}
