// Package labtest is what tests that bring up a lab share: where the programs under test are, a lab that ends with its test and shows its
// agents' logs when that failed, and what a test asks of its hosts.
package labtest

import (
	"context"
	"errors"
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

// Hosts of the topologies that most tests use.
const (
	Master = "kube-master"
	Node1  = "kube-node1"
	Node2  = "kube-node2"
	Node3  = "kube-node3"
)

// commandLimit bounds a command on a host: the machine may be busy with other things.
const commandLimit = 2 * time.Minute

// Role is what a test's binary does when it is started again with a word as its first argument, in a host or in a pod.
type Role func(args []string) error

// Main is the body of a TestMain: it serves the lab, for which the binary runs again, plays the role that the first argument names, or
// else finds the programs and runs the tests. It returns the exit status.
func Main(m *testing.M, roles map[string]Role, programs ...string) int {
	if code, ran := lab.Helper(os.Args[1:]); ran {
		return code
	}
	if len(os.Args) > 1 {
		if play, ok := roles[os.Args[1]]; ok {
			if err := play(os.Args[2:]); err != nil {
				fmt.Fprintln(os.Stderr, err)
				return 1
			}
			return 0
		}
	}
	flag.Parse()
	for _, name := range append([]string{"weft"}, programs...) {
		if info, err := os.Stat(Program(name)); err != nil || info.Mode()&0o111 == 0 {
			fmt.Fprintf(os.Stderr, "%s is no program: run make build, or set WEFT_BIN to the directory that has it\n", Program(name))
			return 1
		}
	}
	return m.Run()
}

// Bin is the directory of the programs under test: $WEFT_BIN, by default bin below the repository. Tests run in their package's
// directory, two levels down.
func Bin() string {
	dir := os.Getenv("WEFT_BIN")
	if dir == "" {
		dir = filepath.Join("..", "..", "bin")
	}
	if abs, err := filepath.Abs(dir); err == nil { // it fails without a working directory only
		dir = abs
	}
	return dir
}

// Program is the path of a program under test.
func Program(name string) string { return filepath.Join(Bin(), name) }

// Cluster is a lab of one test. Its methods end the test when what they need fails.
type Cluster struct {
	*lab.Lab
	T *testing.T
	// Nodes are the hosts whose logs a failed test shows.
	Nodes []string
	// Show is a shell command whose output on each node a failed test shows too.
	Show string
}

// Up brings up a lab for this test: its name is made from name and the process. Options that are not set get their values here.
func Up(t *testing.T, name string, top topology.Topology, o lab.Options) *Cluster {
	t.Helper()
	o.Name, o.Attached, o.Bin, o.Self = fmt.Sprintf("%s-%d", name, os.Getpid()), true, Bin(), Program("weft")
	if o.Timeout == 0 {
		o.Timeout = 3 * time.Minute
	}
	l, err := lab.Up(t.Context(), top, o)
	if err != nil {
		t.Fatal(err)
	}
	c := &Cluster{Lab: l, T: t}
	for _, h := range top.Hosts {
		if h.Role != topology.Master {
			c.Nodes = append(c.Nodes, h.Name)
		}
	}
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

// logs shows the end of each agent's log, and what Show prints.
func (c *Cluster) logs() {
	for _, h := range c.Nodes {
		if c.Show != "" {
			out, err := c.Sh(h, c.Show)
			c.T.Logf("%s:\n%s\n%v", h, out, err)
		}
		text, err := os.ReadFile(c.LogFile(h, lab.Agent))
		if err != nil {
			continue // it never started, or the host has none
		}
		lines := strings.Split(string(text), "\n")
		c.T.Logf("%s agent:\n%s", h, strings.Join(lines[max(0, len(lines)-100):], "\n"))
	}
}

// Sh runs a shell's command line on a host and returns its standard output, without white space around it; the error has the end of what
// it says on standard error. It works when the test is over, too.
func (c *Cluster) Sh(host, command string) (string, error) {
	ctx, stop := context.WithTimeout(context.Background(), commandLimit)
	defer stop()
	out, err := c.Exec(ctx, host, "sh", "-c", command)
	return strings.TrimSpace(out), err
}

// Must is Sh for what has to work.
func (c *Cluster) Must(host, command string) string {
	c.T.Helper()
	out, err := c.Sh(host, command)
	if err != nil {
		c.T.Fatalf("%s: %s: %v\n%s", host, command, err, out)
	}
	return out
}

// Kubectl runs the real one on the master.
func (c *Cluster) Kubectl(args ...string) string {
	c.T.Helper()
	out, err := c.Lab.Kubectl(c.T.Context(), args...)
	if err != nil {
		c.T.Fatalf("kubectl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(out)
}

// Write puts a file on a host.
func (c *Cluster) Write(host, path, text string) {
	c.T.Helper()
	if err := c.WriteFile(c.T.Context(), host, path, []byte(text)); err != nil {
		c.T.Fatal(err)
	}
}

// Says is a check that a host's command prints all that is wanted.
func (c *Cluster) Says(host, command string, want ...string) func() error {
	return func() error {
		out, err := c.Sh(host, command)
		if err != nil {
			return fmt.Errorf("%s: %s: %w\n%s", host, command, err, out)
		}
		for _, w := range want {
			if !strings.Contains(out, w) {
				return fmt.Errorf("%s: %s: no %q in:\n%s", host, command, w, out)
			}
		}
		return nil
	}
}

// Eventually waits until check returns nil and returns how long that took. It ends the test when Slack times the limit has passed.
func Eventually(t *testing.T, what string, limit time.Duration, check func() error) time.Duration {
	t.Helper()
	limit *= Slack
	begun := time.Now()
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for {
		err := check()
		if err == nil {
			return time.Since(begun)
		}
		if time.Since(begun) > limit {
			t.Fatalf("%s: not after %s: %v", what, limit, err)
		}
		<-again.C
	}
}

// AsPlanned waits until a host's agent wants nothing changed: it may have yet to see what happened last.
func (c *Cluster) AsPlanned(host string) {
	c.T.Helper()
	Eventually(c.T, host+" is as planned", 5*time.Second, func() error {
		diff, err := c.Sh(host, "weft diff") // an agent with much to do may not answer at once
		if err == nil && diff != "" {
			err = errors.New("it wants a change")
		}
		if err != nil {
			err = fmt.Errorf("%w: %s", err, diff)
		}
		return err
	})
}
