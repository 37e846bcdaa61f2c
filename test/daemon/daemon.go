// Package daemon runs a node agent, or what it is compared with, for tests and benchmarks that bring up no lab.
package daemon

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"weft/internal/agent/rundir"
	"weft/internal/agent/status"
	"weft/test/labtest"
)

// Find is the path of the program that the environment variable names, else of the one among the programs under test; "" when there is none.
func Find(variable, name string) string {
	for _, f := range []string{os.Getenv(variable), labtest.Program(name)} {
		if p, err := filepath.Abs(f); f != "" && err == nil {
			if _, err := os.Stat(p); err == nil {
				return p
			}
		}
	}
	return ""
}

// Run runs a command line, without a shell.
func Run(tb testing.TB, line string) {
	tb.Helper()
	args := strings.Fields(line)
	if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
		tb.Fatalf("%s: %v: %s", line, err, out)
	}
}

// Daemon is a program that is started, killed and started again. It ends with its test.
type Daemon struct {
	TB   testing.TB
	Args []string
	Dir  string        // an agent's --run-dir is "run" there
	Log  *bytes.Buffer // what it said since it was started last

	cmd   *exec.Cmd
	ended chan error
}

// Start executes it and returns when that was.
func (d *Daemon) Start() time.Time {
	d.TB.Helper()
	d.Log, d.ended = &bytes.Buffer{}, make(chan error, 1)
	d.cmd = exec.Command(d.Args[0], d.Args[1:]...)
	d.cmd.Stdout, d.cmd.Stderr = d.Log, d.Log
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	at := time.Now()
	if err := d.cmd.Start(); err != nil {
		d.TB.Fatal(err)
	}
	go func(c *exec.Cmd) { d.ended <- c.Wait() }(d.cmd)
	d.TB.Cleanup(d.Kill)
	return at
}

// PID is its process, while it runs.
func (d *Daemon) PID() int { return d.cmd.Process.Pid }

// Kill ends it at once, as a crash.
func (d *Daemon) Kill() {
	if d.cmd == nil {
		return
	}
	_ = d.cmd.Process.Kill()
	err := <-d.ended
	if d.TB.Failed() {
		d.TB.Logf("%s ended (%v):\n%s", d.Args[0], err, d.end())
	}
	d.cmd = nil
}

// end is the end of what it said.
func (d *Daemon) end() string {
	text := d.Log.String()
	return text[max(0, len(text)-5000):]
}

// Status is what an agent says of itself, zero when it does not answer.
func (d *Daemon) Status() (s status.Status) {
	body, err := rundir.Ask(context.Background(), filepath.Join(d.Dir, "run"), "/status")
	if err != nil || json.Unmarshal(body, &s) != nil {
		return status.Status{}
	}
	return s
}

// Settled waits until an agent says that everything is as planned, and ok agrees, and returns when it did.
func (d *Daemon) Settled(limit time.Duration, ok func(status.Status) bool) (s status.Status, at time.Time) {
	d.TB.Helper()
	again := time.NewTicker(2 * time.Millisecond)
	defer again.Stop()
	for end := time.Now().Add(limit); time.Now().Before(end); {
		if s = d.Status(); s.Converged && s.Network.Steps > 0 && ok(s) {
			return s, time.Now()
		}
		select {
		case err := <-d.ended:
			d.ended <- err
			d.TB.Fatalf("%s ended: %v\n%s", d.Args[0], err, d.end())
		case <-again.C:
		}
	}
	d.TB.Fatalf("not settled after %s: %+v\n%s", limit, s, d.end())
	return s, at
}

// Memory is the resident memory, how much of it is no file's, and the most it ever was, in MiB.
func (d *Daemon) Memory() (rss, anon, peak float64) {
	d.TB.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", d.PID()))
	if err != nil {
		d.TB.Fatal(err)
	}
	field := func(name string) float64 {
		_, rest, _ := strings.Cut(string(text), name+":")
		kb, _, _ := strings.Cut(strings.TrimSpace(rest), " ")
		n, err := strconv.Atoi(kb)
		if err != nil {
			d.TB.Fatalf("%s in %s", name, text)
		}
		return float64(n) / 1024
	}
	return field("VmRSS"), field("RssAnon"), field("VmHWM")
}

// Processor is the processor time it has used, in user and kernel mode.
func (d *Daemon) Processor() time.Duration {
	d.TB.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", d.PID()))
	if err != nil {
		d.TB.Fatal(err)
	}
	f := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	user, err1 := strconv.Atoi(f[11])
	system, err2 := strconv.Atoi(f[12])
	if err1 != nil || err2 != nil {
		d.TB.Fatalf("stat %s", text)
	}
	return time.Duration(user+system) * time.Second / 100
}

// Quantile is the value below which the part q of the samples lies.
func Quantile(samples []time.Duration, q float64) time.Duration {
	if len(samples) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(samples))
	return s[min(int(q*float64(len(s))), len(s)-1)]
}

// Millis is a duration in milliseconds.
func Millis(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
