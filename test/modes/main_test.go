package modes

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
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

var (
	hosts    = []string{node1, node2}
	switches = flag.Int("switches", 12, "how often each node changes its mode")
	bin      string // directory of the binaries under test
)

func TestMain(m *testing.M) {
	if code, ran := lab.Helper(os.Args[1:]); ran {
		os.Exit(code)
	}
	if len(os.Args) > 1 && (os.Args[1] == echoArg || os.Args[1] == clientArg) {
		run := serveEcho
		if os.Args[1] == clientArg {
			run = runClient
		}
		if err := run(os.Stdin, os.Stdout, os.Args[2:]); err != nil {
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

func up(t *testing.T, text string) *cluster {
	t.Helper()
	top, err := topology.Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	l, err := lab.Up(t.Context(), top, lab.Options{
		Name: fmt.Sprintf("modes-%d", os.Getpid()), Attached: true, Bin: bin, Self: filepath.Join(bin, "weft"), Timeout: 3 * time.Minute,
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
		out, _ := c.sh(h, "weft status; nft list table inet weft") // a failed test shows what it can
		c.t.Logf("%s:\n%s", h, out)
		lines := strings.Split(string(text), "\n")
		c.t.Logf("%s agent:\n%s", h, strings.Join(lines[max(0, len(lines)-400):], "\n"))
	}
}

func (c *cluster) sh(host, command string) (string, error) {
	ctx, stop := context.WithTimeout(context.Background(), 30*time.Second) // also when the test is over
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

func (c *cluster) write(host, path, text string) {
	c.t.Helper()
	if err := c.WriteFile(c.t.Context(), host, path, []byte(text)); err != nil {
		c.t.Fatal(err)
	}
}

// eventually waits for what must become true.
func (c *cluster) eventually(what string, limit time.Duration, ok func() (bool, string)) {
	c.t.Helper()
	end := time.Now().Add(limit)
	for {
		done, saw := ok()
		if done {
			return
		}
		if time.Now().After(end) {
			c.t.Fatalf("not within %s: %s: %s", limit, what, saw)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

const settingsFile = "/etc/weft/agent.yaml"

// argv is the command line of the host's agent, with its proxy mode in a file.
func (c *cluster) argv(host string) []string {
	c.t.Helper()
	list, err := c.Programs(c.t.Context(), host)
	if err != nil {
		c.t.Fatal(err)
	}
	for _, p := range list {
		if p.Name == lab.Agent {
			argv := slices.DeleteFunc(slices.Clone(p.Argv), func(a string) bool {
				return strings.HasPrefix(a, "--proxy-mode=") || strings.HasPrefix(a, "--config=")
			})
			return append(argv, "--config="+settingsFile)
		}
	}
	c.t.Fatalf("%s has no agent", host)
	return nil
}

// restart starts the host's agent anew with a mode in its file.
func (c *cluster) restart(host, mode string) {
	c.t.Helper()
	argv := c.argv(host)
	c.write(host, settingsFile, "proxy-mode: "+mode+"\n")
	if err := c.Stop(c.t.Context(), host, lab.Agent); err != nil {
		c.t.Fatal(err)
	}
	if err := c.Run(c.t.Context(), host, lab.Agent, argv...); err != nil {
		c.t.Fatal(err)
	}
	if err := c.WaitReady(c.t.Context(), host, lab.Agent); err != nil {
		c.t.Fatal(err)
	}
}
