package e2e

import (
	"flag"
	"fmt"
	"os"
	"testing"

	"weft/test/labtest"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// bin is the directory of the binaries under test.
var bin = labtest.Bin()

func TestMain(m *testing.M) {
	code := labtest.Main(m, nil, "weft-server", "kubectl")
	if err := downShared(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = max(code, 1)
	}
	os.Exit(code)
}
