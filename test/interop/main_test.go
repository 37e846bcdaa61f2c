package interop

import (
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"weft/internal/lab"
)

// bin is the directory of the programs under test, with this program among them as probeName, so that hosts of a lab see it.
var bin string

// parallel is how many networks are tested at once: most of the time they wait.
const parallel = "8"

func TestMain(m *testing.M) {
	if code, ran := lab.Helper(os.Args[1:]); ran {
		os.Exit(code)
	}
	if code, ran := probeMain(os.Args); ran {
		os.Exit(code)
	}
	flag.Parse()
	dir, err := collect()
	if err == nil {
		bin, err = dir, flag.Set("test.parallel", parallel)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	if err := downShared(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = max(code, 1)
	}
	if err := os.RemoveAll(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = max(code, 1)
	}
	os.Exit(code)
}

// collect puts the programs into one new directory.
func collect() (string, error) {
	from := os.Getenv("WEFT_BIN")
	if from == "" {
		from = "../../bin"
	}
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	dir, err := os.MkdirTemp("", "weft-interop-")
	if err != nil {
		return "", err
	}
	for name, path := range map[string]string{
		"weft": filepath.Join(from, "weft"), "weft-server": filepath.Join(from, "weft-server"), "kubectl": filepath.Join(from, "kubectl"),
		"flanneld": filepath.Join(from, "flanneld"), probeName: self,
	} {
		if err := place(path, filepath.Join(dir, name)); err != nil {
			return "", fmt.Errorf("%w: run make build bin/flanneld, or set WEFT_BIN to where the programs are", err)
		}
	}
	return dir, nil
}

// place links a file, or copies it from another file system.
func place(from, to string) error {
	from, err := filepath.EvalSymlinks(from)
	if err != nil {
		return err
	}
	if os.Link(from, to) == nil {
		return nil
	}
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, in); err != nil {
		return err
	}
	return out.Close()
}
