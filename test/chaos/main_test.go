package chaos

import (
	"flag"
	"os"
	"testing"

	"weft/test/labtest"
)

var (
	seed   = flag.Uint64("seed", 1, "of the random order and choices; 0: another one each time, which is printed")
	rounds = flag.Int("rounds", 2, "how many times each injury is done")
	only   = flag.String("only", "", "a part of the names of what is done; empty: all")
	strict = flag.Bool("strict", false, "demand 100 ms of 99 of 100 repairs, as a machine without other work can")
	update = flag.Bool("update", false, "rewrite the table in docs/chaos.md")
)

// bin is the directory of the binaries under test.
var bin = labtest.Bin()

func TestMain(m *testing.M) { os.Exit(labtest.Main(m, nil, "weft-server", "kubectl")) }
