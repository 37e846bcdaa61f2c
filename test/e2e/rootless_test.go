package e2e

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"weft/internal/lab"
)

// nobody is an ordinary user: it owns nothing and has no rights.
const nobody = 65534

// TestRootless runs the demo as an ordinary user.
func TestRootless(t *testing.T) {
	t.Parallel()
	dir := tempDir(t)
	programs := bin
	var user *syscall.SysProcAttr
	if os.Geteuid() == 0 {
		user = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
		if err := os.Chown(dir, nobody, nobody); err != nil {
			t.Fatal(err)
		}
		programs = readable(t, user)
	}
	labs := filepath.Join(dir, "labs")
	cmd := exec.Command(filepath.Join(programs, "weft"), "lab", "demo", "--name", "rootless")
	cmd.Dir = "/"
	cmd.Env = []string{"HOME=" + dir, "PATH=/usr/bin:/bin", lab.DirVariable + "=" + labs} // Debian's PATH of an ordinary user: no sbin
	cmd.SysProcAttr = user
	began := time.Now()
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("weft lab demo as uid %d: %v\n%s", nobody, err, tail(string(out), 60))
	}
	t.Logf("as uid %d: %s in %s", nobody, tail(string(out), 1), time.Since(began).Round(10*time.Millisecond))
	if !strings.Contains(string(out), "rows replayed") {
		t.Errorf("no row was replayed:\n%s", out)
	}
	nothingOf(t, labs)
}

// readable is a directory with the binaries that an ordinary user can read.
func readable(t *testing.T, user *syscall.SysProcAttr) string {
	t.Helper()
	cmd := exec.Command(filepath.Join(bin, "weft"), "version")
	cmd.Dir, cmd.SysProcAttr = "/", user
	if cmd.Run() == nil {
		return bin
	}
	dir := tempDir(t)
	for _, name := range []string{"weft", "weft-server", "kubectl"} {
		text, err := os.ReadFile(filepath.Join(bin, name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// tempDir is a directory others can enter, with a path short enough for the sockets in it.
func tempDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "e2e")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestSideBySide has two clusters with the same hosts and addresses at the same time. One is taken down, the other's supervisor is
// killed: nothing stays of either.
func TestSideBySide(t *testing.T) {
	t.Parallel()
	labs := filepath.Join(tempDir(t), "labs")
	weft := func(args ...string) (string, error) {
		cmd := exec.Command(filepath.Join(bin, "weft"), append([]string{"lab"}, args...)...)
		cmd.Env = append(os.Environ(), lab.DirVariable+"="+labs)
		out, err := cmd.CombinedOutput()
		if err != nil {
			err = fmt.Errorf("weft lab %s: %w\n%s", strings.Join(args, " "), err, out)
		}
		return string(out), err
	}
	must := func(args ...string) string {
		t.Helper()
		out, err := weft(args...)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	names := []string{"left", "right"}
	t.Cleanup(func() {
		for _, n := range names {
			if _, err := weft("down", "--name", n); err != nil {
				t.Error(err)
			}
		}
	})
	began := time.Now()
	errs := make([]error, len(names))
	var all sync.WaitGroup
	for i, n := range names {
		all.Go(func() { _, errs[i] = weft("up", "--name", n) })
	}
	all.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	t.Logf("two clusters up in %s", time.Since(began).Round(10*time.Millisecond))
	for _, n := range names {
		must("kubectl", "--name", n, "create", "configmap", "in-"+n)
	}
	for i, n := range names {
		out := must("kubectl", "--name", n, "get", "configmaps")
		if !strings.Contains(out, "in-"+n) || strings.Contains(out, "in-"+names[1-i]) {
			t.Errorf("cluster %s has\n%s", n, out)
		}
	}
	if _, err := weft("up", "--name", "left"); err == nil || !strings.Contains(err.Error(), "already up") {
		t.Errorf("a name was taken twice: %v", err)
	}
	must("down", "--name", "left")
	nothingOf(t, filepath.Join(labs, "left"))
	must("kubectl", "--name", "right", "get", "configmap", "in-right")

	right := filepath.Join(labs, "right")
	text, err := os.ReadFile(filepath.Join(right, "pid"))
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	if left := usersOf(right); len(left) < 6 { // supervisor, hosts, server, agents
		t.Fatalf("only %d processes are known to be in the lab: %v", len(left), left)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	took := eventually(t, "the end of the lab's processes", 10*time.Second, func() error {
		if left := usersOf(right); len(left) > 0 {
			return fmt.Errorf("left: %v", left)
		}
		return nil
	})
	t.Logf("supervisor killed: the last process ended %s later", took.Round(time.Millisecond))
	must("down", "--name", "right")
	nothingOf(t, labs)
}

// nothingOf checks that a lab directory is gone, and whatever used it: processes, and with them mounts and namespaces.
func nothingOf(t *testing.T, dir string) {
	t.Helper()
	if _, err := os.Lstat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%s is left behind (%v)", dir, err)
	}
	if left := usersOf(dir); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// usersOf are the processes of the labs in a directory: they have it on their command line or their root or other mounts are of it.
// Mounts and namespaces of a lab are its processes'; one that outlived them would show in this process's mounts.
func usersOf(dir string) []string {
	dir = strings.TrimPrefix(dir, "/tmp") // where /tmp is a file system of its own, mounts are named below it
	var users []string
	processes, _ := filepath.Glob("/proc/[0-9]*")
	for _, p := range append(processes, "/proc/self") {
		args, _ := os.ReadFile(p + "/cmdline")
		mounts, _ := os.ReadFile(p + "/mountinfo")
		line := strings.ReplaceAll(strings.TrimRight(string(args), "\x00"), "\x00", " ")
		if strings.Contains(string(mounts), dir+"/") || strings.Contains(line, dir) {
			users = append(users, filepath.Base(p)+" "+line)
		}
	}
	return users
}
