package bench

import (
	"os"
	"testing"
	"time"

	"weft/internal/kernel/netns"
	"weft/test/daemon"
)

// programs holds the paths of the daemons under test; "" is one that is not there.
var programs struct{ weft, flanneld string }

func TestMain(m *testing.M) {
	programs.weft, programs.flanneld = daemon.Find("WEFT", "weft"), daemon.Find("FLANNELD", "flanneld")
	os.Exit(netns.Main(m))
}

func median(samples []time.Duration) time.Duration { return daemon.Quantile(samples, 0.5) }
