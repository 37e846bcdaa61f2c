package change

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"weft/internal/lab"
	"weft/internal/lab/topology"
)

const (
	master = "kube-master"
	node1  = "kube-node1"
	node2  = "kube-node2"
	node3  = "kube-node3"
)

var hosts = []string{node1, node2, node3}

// bin is the directory of the binaries under test.
var bin string

func TestMain(m *testing.M) {
	if code, ran := lab.Helper(os.Args[1:]); ran {
		os.Exit(code)
	}
	if len(os.Args) > 1 && os.Args[1] == proberArg {
		if err := prober(os.Stdin, os.Stdout, os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
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

// cluster is a lab with programs.
type cluster struct {
	*lab.Lab
	t *testing.T
}

func up(t *testing.T, top topology.Topology) *cluster {
	t.Helper()
	l, err := lab.Up(t.Context(), top, lab.Options{
		Name: fmt.Sprintf("change-%d", os.Getpid()), Attached: true, Bin: bin, Self: filepath.Join(bin, "weft"), Timeout: 2 * time.Minute,
	})
	if err != nil {
		t.Fatal(err)
	}
	c := &cluster{l, t}
	t.Cleanup(func() {
		if t.Failed() {
			c.logs()
		}
		if err := l.Down(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func (c *cluster) logs() {
	for _, h := range hosts {
		text, err := os.ReadFile(c.LogFile(h, lab.Agent))
		if err != nil {
			c.t.Log(err)
			continue
		}
		lines := strings.Split(string(text), "\n")
		c.t.Logf("%s agent:\n%s", h, strings.Join(lines[max(0, len(lines)-60):], "\n"))
	}
}

func (c *cluster) sh(host, command string) (string, error) {
	ctx, stop := context.WithTimeout(c.t.Context(), 20*time.Second)
	defer stop()
	out, err := c.Exec(ctx, host, "sh", "-c", command)
	return strings.TrimSpace(out), err
}

func (c *cluster) must(host, command string) string {
	c.t.Helper()
	out, err := c.sh(host, command)
	if err != nil {
		c.t.Fatalf("%s: %s: %v\n%s", host, command, err, out)
	}
	return out
}

func (c *cluster) kubectl(args ...string) string {
	c.t.Helper()
	out, err := c.Kubectl(c.t.Context(), args...)
	if err != nil {
		c.t.Fatalf("kubectl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(out)
}
