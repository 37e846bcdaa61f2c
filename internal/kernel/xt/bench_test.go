package xt_test

import (
	"context"
	"fmt"
	"testing"

	"weft/internal/kernel/netns"
	kernelxt "weft/internal/kernel/xt"
	"weft/internal/xt"
)

// BenchmarkSync measures what a sync costs at n services with everything in place (read), when one service changes (edit), and from
// nothing (fill).
func BenchmarkSync(b *testing.B) {
	netns.Need(b)
	var k kernelxt.Kernel
	ctx := context.Background()
	sync := func(want xt.Ruleset, some bool) {
		have, err := k.Read(ctx)
		if err != nil {
			b.Fatal(err)
		}
		ops := xt.Diff(want, have)
		if (len(ops) > 0) != some {
			b.Fatalf("%d ops", len(ops))
		}
		if err := k.Apply(ctx, ops); err != nil {
			b.Fatal(err)
		}
	}
	for _, n := range []int{100, 1000} {
		all, less := plan(n), plan(n-1)
		b.Run(fmt.Sprint("fill/", n), func(b *testing.B) {
			for b.Loop() {
				sync(all, true)
				b.StopTimer()
				sync(xt.Ruleset{}, true)
				b.StartTimer()
			}
		})
		sync(all, true)
		b.Run(fmt.Sprint("read/", n), func(b *testing.B) {
			for b.Loop() {
				sync(all, false)
			}
		})
		b.Run(fmt.Sprint("edit/", n), func(b *testing.B) {
			for i := 0; b.Loop(); i++ {
				sync([]xt.Ruleset{less, all}[i%2], true)
			}
			b.StopTimer()
			have, _ := k.Read(ctx)
			_ = k.Apply(ctx, xt.Diff(all, have))
		})
		sync(xt.Ruleset{}, true)
	}
}
