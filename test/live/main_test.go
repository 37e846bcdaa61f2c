package live

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
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

// cluster is a lab with programs.
type cluster struct {
	*lab.Lab
	t *testing.T
}

func up(t *testing.T, top topology.Topology) *cluster {
	t.Helper()
	l, err := lab.Up(t.Context(), top, lab.Options{
		Name: fmt.Sprintf("live-%d", os.Getpid()), Attached: true, Bin: bin, Self: filepath.Join(bin, "weft"), Timeout: time.Minute,
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
	for _, h := range []string{node1, node2} {
		text, err := os.ReadFile(c.LogFile(h, lab.Agent))
		if err != nil {
			c.t.Log(err)
			continue
		}
		lines := strings.Split(string(text), "\n")
		c.t.Logf("%s agent:\n%s", h, strings.Join(lines[max(0, len(lines)-40):], "\n"))
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

// repair runs a command on a host and measures there how long it takes until a check holds, which must not hold right after the command
// if the agent does nothing. Both are one shell's work, so that the way to the host is not measured.
func (c *cluster) repair(host, injure, check string, limit time.Duration) time.Duration {
	c.t.Helper()
	out, err := c.sh(host, fmt.Sprintf(`(%s) >/dev/null 2>&1 || { echo the injury failed; exit 1; }
a=$(date +%%s%%N)
while :; do
  if (%s) >/dev/null 2>&1; then b=$(date +%%s%%N); echo $(((b-a)/1000)); exit; fi
  b=$(date +%%s%%N); [ $(((b-a)/1000000)) -gt %d ] && { echo not repaired; exit 1; }
done`, injure, check, limit.Milliseconds()))
	if err != nil {
		c.t.Errorf("%s: %s: %v %s", host, injure, err, out)
		return limit
	}
	us, err := strconv.Atoi(out)
	if err != nil {
		c.t.Fatal(err)
	}
	return time.Duration(us) * time.Microsecond
}

// eventually waits until check returns nil.
func eventually(t *testing.T, what string, limit time.Duration, check func() error) time.Duration {
	t.Helper()
	begun := time.Now()
	for {
		err := check()
		if err == nil {
			return time.Since(begun)
		}
		if time.Since(begun) > limit {
			t.Errorf("%s: not after %s: %v", what, limit, err)
			return limit
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// says is a check that a host's command prints what is wanted.
// nexthop is what "ip route" tells of the next hop object of a route; the gateway follows.
var nexthop = regexp.MustCompile(`nhid \d+ `)

func (c *cluster) says(host, command string, want ...string) func() error {
	return func() error {
		out, err := c.sh(host, command)
		if err != nil {
			return err
		}
		out = nexthop.ReplaceAllString(out, "")
		for _, w := range want {
			if !strings.Contains(out, w) {
				return errors.New("no " + w + " in:\n" + out)
			}
		}
		return nil
	}
}
