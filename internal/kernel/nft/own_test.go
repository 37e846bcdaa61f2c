package nft_test

import (
	"context"
	"os/exec"
	"testing"
	"time"

	"weft/internal/nft"
)

// TestOwn: watchers hear nothing of a transaction that a program makes for us, and of all others, those beside it too.
func TestOwn(t *testing.T) {
	c := open(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	changed, err := c.Watch(ctx, nft.INet, nft.TableName)
	if err != nil {
		t.Fatal(err)
	}
	program := func(lines ...string) func() error {
		return func() error {
			for _, line := range lines {
				if out, err := exec.Command("nft", line).CombinedOutput(); err != nil {
					t.Errorf("nft %s: %s", line, out)
				}
			}
			return nil
		}
	}
	told := func(within time.Duration) bool {
		select {
		case <-changed:
			return true
		case <-time.After(within):
			return false
		}
	}
	if err := c.Own(program("add table inet weft")); err != nil || told(200*time.Millisecond) {
		t.Fatalf("%v: told of our own transaction", err)
	}
	if _ = program("add chain inet weft a")(); !told(30 * time.Second) {
		t.Error("not told of somebody else's")
	}
	if err := c.Own(program("add chain inet weft b", "add chain inet weft c")); err != nil || !told(30*time.Second) {
		t.Errorf("%v: not told of two transactions, of which one may be somebody else's", err)
	}
	for told(200 * time.Millisecond) {
		continue
	}
	if err := c.Own(program()); err != nil {
		t.Fatal(err)
	}
	if _ = program("add chain inet weft d")(); !told(30 * time.Second) {
		t.Error("not told of somebody else's after a program that did nothing")
	}
}
