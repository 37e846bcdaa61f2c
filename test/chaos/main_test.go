package chaos

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"weft/internal/lab"
)

var (
	seed   = flag.Uint64("seed", 0, "of the random order and choices; 0: another one each time, which is printed")
	rounds = flag.Int("rounds", 2, "how many times each injury is done")
	only   = flag.String("only", "", "a part of the names of what is done; empty: all")
	strict = flag.Bool("strict", false, "demand 100 ms of 99 of 100 repairs, as a machine without other work can")
	update = flag.Bool("update", false, "rewrite the table in docs/chaos.md")
)

// bin is the directory of the binaries under test.
var bin string

func TestMain(m *testing.M) {
	if code, ran := lab.Helper(os.Args[1:]); ran {
		os.Exit(code)
	}
	flag.Parse()
	dir := os.Getenv("WEFT_BIN")
	if dir == "" {
		dir = "../../bin"
	}
	var err error
	if bin, err = filepath.Abs(dir); err == nil {
		_, err = os.Stat(filepath.Join(bin, "weft-server"))
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "no programs: %v: run make build, or set WEFT_BIN to where they are\n", err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}
