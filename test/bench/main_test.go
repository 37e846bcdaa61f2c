package bench

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"weft/internal/kernel/netns"
)

// programs holds the paths of the daemons under test; "" is one that is not there.
var programs struct{ weft, flanneld string }

func TestMain(m *testing.M) {
	dir := os.Getenv("WEFT_BIN")
	if dir == "" {
		dir = "../../bin"
	}
	programs.weft = program(os.Getenv("WEFT"), filepath.Join(dir, "weft"))
	programs.flanneld = program(os.Getenv("FLANNELD"), filepath.Join(dir, "flanneld"))
	os.Exit(netns.Main(m))
}

// program is the first of the files that is there, as an absolute path.
func program(files ...string) string {
	for _, f := range files {
		if p, err := filepath.Abs(f); f != "" && err == nil {
			if _, err := os.Stat(p); err == nil {
				return p
			}
		}
	}
	return ""
}

// run runs a command line, without a shell.
func run(tb testing.TB, line string) {
	tb.Helper()
	args := strings.Fields(line)
	if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
		tb.Fatalf("%s: %v: %s", line, err, out)
	}
}

// quantile is the value below which the part q of the samples lies.
func quantile(samples []time.Duration, q float64) time.Duration {
	if len(samples) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(samples))
	return s[min(int(q*float64(len(s))), len(s)-1)]
}

func median(samples []time.Duration) time.Duration { return quantile(samples, 0.5) }

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
