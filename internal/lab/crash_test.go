package lab_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"weft/internal/lab"
	"weft/internal/lab/topology"
)

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// inside returns the processes that are in the network namespace, by its name as in /proc/PID/ns/net.
func inside(ns string) []string {
	var found []string
	links, _ := filepath.Glob("/proc/[0-9]*/ns/net")
	for _, l := range links {
		if at, err := os.Readlink(l); err == nil && at == ns {
			found = append(found, l)
		}
	}
	return found
}

func namespace(t *testing.T, l *lab.Lab, host string) string {
	t.Helper()
	pid, err := l.PID(t.Context(), host)
	if err != nil {
		t.Fatal(err)
	}
	ns, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", pid))
	if err != nil {
		t.Fatal(err)
	}
	return ns
}

func hostsOnly(name string) lab.Options { return lab.Options{Name: name, HostsOnly: true} }

// TestCrash kills the supervisor: everything in the lab ends, and what is left is recognised and cleaned.
func TestCrash(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"up", "down"} {
		l, err := lab.Up(t.Context(), topology.HostsOnly(2), hostsOnly("crash"))
		if err != nil {
			t.Fatal(err)
		}
		if err := l.Run(t.Context(), "h1", "daemon", "sh", "-c", "setsid sleep 1000 & exec sleep 1000"); err != nil {
			t.Fatal(err)
		}
		ns := namespace(t, l, "h1")
		b, err := os.ReadFile(filepath.Join(l.Dir(), "pid"))
		if err != nil {
			t.Fatal(err)
		}
		pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
		if err != nil {
			t.Fatal(err)
		}
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the end of all processes", func() bool { return len(inside(ns)) == 0 })
		if _, err := l.Exec(t.Context(), "h1", "true"); err == nil {
			t.Error("a dead host runs commands")
		}
		eventually(t, "the crash to be seen", func() bool { _, err := lab.Open("crash"); return errors.Is(err, lab.ErrCrashed) })
		if list, err := lab.List(); err != nil || !slices.Contains(list, lab.Entry{Name: "crash", Crashed: true}) {
			t.Errorf("list: %v %v", list, err)
		}
		if how == "up" {
			again, err := lab.Up(t.Context(), topology.HostsOnly(1), hostsOnly("crash"))
			if err != nil {
				t.Fatal(err)
			}
			run(t, again, "h1", "true")
		}
		if was, err := lab.Down("crash"); err != nil || !was {
			t.Errorf("down: %v %v", was, err)
		}
		if _, err := os.Stat(l.Dir()); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is left behind: %v", l.Dir(), err)
		}
	}
	if was, err := lab.Down("crash"); err != nil || was {
		t.Errorf("down of nothing: %v %v", was, err)
	}
	if _, err := lab.Open("crash"); !errors.Is(err, lab.ErrDown) {
		t.Errorf("open of nothing: %v", err)
	}
}

// attachedMain is the process that TestAttached kills.
func attachedMain() error {
	l, err := lab.Up(context.Background(), topology.HostsOnly(1), lab.Options{Name: "attached", HostsOnly: true, Attached: true})
	if err != nil {
		return err
	}
	pid, err := l.PID(context.Background(), "h1")
	if err != nil {
		return err
	}
	fmt.Println(pid)
	for { // in the kernel: without cgo, Go ends a program whose goroutines all wait for each other
		_ = syscall.Pause()
	}
}

// TestAttached kills the process that holds a lab: the lab ends and leaves nothing.
func TestAttached(t *testing.T) {
	t.Parallel()
	base := filepath.Join(t.TempDir(), "labs")
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), "LAB_TEST_ATTACHED=1", lab.DirVariable+"="+base)
	cmd.Stderr = t.Output()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	ns, err := os.Readlink("/proc/" + strings.TrimSpace(line) + "/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	eventually(t, "the lab to end", func() bool { return len(inside(ns)) == 0 })
	eventually(t, "its files to go", func() bool { _, err := os.Stat(base); return errors.Is(err, fs.ErrNotExist) })
}

// TestSideBySide has two labs with the same hosts and addresses, and one of a name that is taken.
func TestSideBySide(t *testing.T) {
	t.Parallel()
	var labs [2]*lab.Lab
	for i, name := range []string{"left", "right"} {
		l, err := lab.Up(t.Context(), topology.HostsOnly(2), hostsOnly(name))
		if err != nil {
			t.Fatal(err)
		}
		labs[i] = l
		defer func() {
			if err := l.Down(); err != nil {
				t.Error(err)
			}
		}()
		run(t, l, "h1", "echo "+name+" > /run/me; mkdir -p /run/www; cp /run/me /run/www/me")
		if err := l.Run(t.Context(), "h1", "web", "busybox", "httpd", "-f", "-h", "/run/www"); err != nil {
			t.Fatal(err)
		}
	}
	for i, name := range []string{"left", "right"} {
		eventually(t, "an answer in "+name, func() bool {
			out, err := get(t, labs[i], "h2", "h1:80", "/me")
			if err == nil && out != name+"\n" {
				t.Fatalf("%s reached %s", name, out)
			}
			return err == nil
		})
	}
	if _, err := lab.Up(t.Context(), topology.HostsOnly(1), hostsOnly("left")); !errors.Is(err, lab.ErrUp) {
		t.Errorf("a name was taken twice: %v", err)
	}
	left := namespace(t, labs[0], "h1")
	if err := labs[0].Down(); err != nil {
		t.Fatal(err)
	}
	if p := inside(left); len(p) > 0 {
		t.Errorf("left behind: %v", p)
	}
	if got := run(t, labs[1], "h1", "cat /run/me"); got != "right" {
		t.Errorf("the other lab: %s", got)
	}
}

// TestRootless runs this package's tests as an ordinary user too.
func TestRootless(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("runs as an ordinary user already")
	}
	t.Parallel()
	cmd := exec.Command("/proc/self/exe", "-test.run", "^Test(Hosts|Programs|Files|Crash|Attached|SideBySide|Cluster)$", "-test.count=1")
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=/usr/bin:/bin", "TMPDIR=/tmp", "HOME=/nonexistent"} // Debian's PATH of an ordinary user: no sbin
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	if !strings.Contains(string(out), "PASS") || strings.Contains(string(out), "no tests to run") {
		t.Errorf("nothing was tested:\n%s", out)
	}
}
