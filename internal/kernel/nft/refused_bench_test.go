package nft_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	kernel "weft/internal/kernel/nft"
	"weft/internal/nft"
)

// BenchmarkRefused programs all services in one transaction in which one element leads to a chain that is not there: it is found and left
// out, the rest is programmed. The ratio is to the same without it.
func BenchmarkRefused(b *testing.B) {
	for _, n := range sizes() {
		b.Run(fmt.Sprintf("services=%d", n), func(b *testing.B) {
			c := open(b)
			var good, bad time.Duration
			for b.Loop() {
				for _, spoil := range []bool{false, true} {
					ops := append([]nft.Op{newTable()}, plan(nft.NewMerge(nft.INet, nft.TableName), services(n, 10))...)
					if spoil {
						spoilOne(b, ops)
					}
					begin := time.Now()
					err := c.Apply(ops)
					if took := time.Since(begin); spoil {
						bad += took
					} else {
						good += took
					}
					if refused, ok := errors.AsType[*kernel.Refused](err); ok != spoil || ok && len(refused.Op.Set.Elements) != 1 {
						b.Fatalf("spoilt: %t, refused: %v", spoil, err)
					}
					remove(b, c)
				}
			}
			b.ReportMetric(float64(bad.Milliseconds())/float64(b.N), "refused-ms")
			b.ReportMetric(float64(bad)/float64(good), "refused-ratio")
		})
	}
}

// spoilOne makes an element in the middle of the verdict map lead nowhere.
func spoilOne(tb testing.TB, ops []nft.Op) {
	tb.Helper()
	for i := range ops {
		if op := &ops[i]; op.Kind == nft.KindElements && op.Verb == nft.Add && op.Set.Name == "vips4" {
			op.Set.Elements[len(op.Set.Elements)/2].Verdict.Chain = "nowhere"
			return
		}
	}
	tb.Fatal("no verdict map")
}
