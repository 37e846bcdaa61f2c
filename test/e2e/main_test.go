package e2e

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"weft/internal/lab"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// bin is the directory of the binaries under test.
var bin string

func TestMain(m *testing.M) {
	if code, ran := lab.Helper(os.Args[1:]); ran {
		os.Exit(code)
	}
	flag.Parse()
	var err error
	if bin, err = findBin(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	if err := downShared(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = max(code, 1)
	}
	os.Exit(code)
}

// findBin looks for the binaries and says how to make them.
func findBin() (string, error) {
	dir := os.Getenv("WEFT_BIN")
	if dir == "" {
		dir = "../../bin"
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	for _, name := range []string{"weft", "weft-server", "kubectl"} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode()&0o111 == 0 {
			return "", fmt.Errorf("%s has no program %s: run make build, or set WEFT_BIN to where it is", dir, name)
		}
	}
	return dir, nil
}
