package e2e

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// maxSize is what the agent's binary may weigh.
const maxSize = 40e6

func TestSizeAndStart(t *testing.T) {
	for _, name := range []string{"weft", "weft-server", "kubectl"} {
		info, err := os.Stat(filepath.Join(bin, name))
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: %.1f MB", name, float64(info.Size())/1e6)
		if name == "weft" && info.Size() > maxSize {
			t.Errorf("%s: %d bytes, want at most %.0f: was it built with make build, which strips it?", name, info.Size(), maxSize)
		}
	}
	c, _ := borrow(t, nftables)
	t.Logf("three hosts, API ready, nodes Ready, subnets leased: %s", c.up.Round(10*time.Millisecond))
}
