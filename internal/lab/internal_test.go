package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func TestMergeFlags(t *testing.T) {
	have := []string{"weft", "agent", "--a=1", "--b", "-c=x"}
	for _, c := range []struct{ flags, want string }{
		{"", "weft agent --a=1 --b -c=x"},
		{"--a=2", "weft agent --a=2 --b -c=x"},
		{"--b=false --c=y", "weft agent --a=1 --b=false --c=y"},
		{"--agent=1 --d", "weft agent --a=1 --b -c=x --agent=1 --d"},
		{"--d=1 --d=2", "weft agent --a=1 --b -c=x --d=2"},
	} {
		if got := strings.Join(mergeFlags(have, strings.Fields(c.flags)), " "); got != c.want {
			t.Errorf("%s: %s, want %s", c.flags, got, c.want)
		}
	}
	if !slices.Equal(have, []string{"weft", "agent", "--a=1", "--b", "-c=x"}) {
		t.Errorf("the program's own flags changed: %v", have)
	}
}

func TestCheckUserNamespaces(t *testing.T) {
	sys := t.TempDir()
	set := func(file, value string) {
		path := filepath.Join(sys, file)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(value+"\n"), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	if err := checkUserNamespaces(sys); err != nil {
		t.Errorf("no sysctl forbids anything: %v", err)
	}
	for _, c := range []struct{ file, bad, good, want string }{
		{"kernel/unprivileged_userns_clone", "0", "1", "sudo sysctl -w kernel.unprivileged_userns_clone=1"},
		{"user/max_user_namespaces", "0", "9", "sudo sysctl -w user.max_user_namespaces=10000"},
		{"kernel/apparmor_restrict_unprivileged_userns", "1", "0", "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"},
	} {
		set(c.file, c.bad)
		if err := checkUserNamespaces(sys); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s=%s: %v", c.file, c.bad, err)
		}
		set(c.file, c.good)
		if err := checkUserNamespaces(sys); err != nil {
			t.Errorf("%s=%s: %v", c.file, c.good, err)
		}
	}
	if err := startError(unix.EPERM, true); !strings.Contains(err.Error(), "run as root") {
		t.Error(err)
	}
}

func TestStateDir(t *testing.T) {
	for _, name := range []string{"", "../x", "a/b", ".", strings.Repeat("x", 33)} {
		if dir, err := stateDir(name); err == nil {
			t.Errorf("name %q was taken: %s", name, dir)
		}
	}
	base := filepath.Join(t.TempDir(), "labs")
	if err := os.Mkdir(base, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(base, 0o777); err != nil {
		t.Fatal(err)
	}
	if _, err := claim(filepath.Join(base, "x")); err == nil || !strings.Contains(err.Error(), DirVariable) {
		t.Errorf("a directory that others can write was taken: %v", err)
	}
	if err := os.Chmod(base, 0o700); err != nil {
		t.Fatal(err)
	}
	// What a crashed lab left, with a directory nobody can write.
	dir := filepath.Join(base, "x")
	if err := errors.Join(os.MkdirAll(dir+"/a/b", 0o755), os.WriteFile(dir+"/a/b/c", nil, 0), os.Chmod(dir+"/a/b", 0o500)); err != nil {
		t.Fatal(err)
	}
	f, err := claim(dir)
	if err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("claimed with %v %v", left, err)
	}
	if _, err := claim(dir); !errors.Is(err, ErrUp) {
		t.Errorf("claimed twice: %v", err)
	}
	_ = f.Close()
	if err := removeState(dir); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(base); err == nil {
		t.Error("the directory of all labs is left")
	}
}

func TestParseSignal(t *testing.T) {
	for name, want := range map[string]syscall.Signal{"KILL": 9, "term": 15, "SIGSTOP": 19} {
		if got, err := parseSignal(name); err != nil || got != want {
			t.Errorf("%s: %v %v", name, got, err)
		}
	}
	if _, err := parseSignal("NOPE"); err == nil {
		t.Error("NOPE is a signal")
	}
}

// TestCommandErrors runs commands that must fail with one line that says what to do.
func TestCommandErrors(t *testing.T) {
	t.Setenv(DirVariable, t.TempDir())
	broken := filepath.Join(t.TempDir(), "t.yaml")
	if err := os.WriteFile(broken, []byte("nodes: -1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for args, want := range map[string]string{
		"status":                     "lab default: not up: start it with: weft lab up",
		"exec --name b h1 -- true":   "lab b: not up: start it with: weft lab up --name b",
		"up -f " + broken:            broken + ": topology: nodes: -1: want 1 to 64",
		"up -f /none":                "open topology: open /none: no such file or directory",
		"up --hosts-only --name a/b": `lab a/b: lab name "a/b": want letters, digits, dashes, at most 32`,
		"up x":                       `unknown command "x" for "lab up"`,
		"kill h1":                    "accepts 2 arg(s), received 1",
		"status -o yaml":             "--output=yaml: want json, or leave it out",
		"up --nonsense":              "unknown flag: --nonsense",
	} {
		c := Command()
		c.SetArgs(strings.Fields(args))
		c.SilenceErrors, c.SilenceUsage = true, true
		if err := c.ExecuteContext(context.Background()); err == nil || err.Error() != want {
			t.Errorf("%s: %v, want %s", args, err, want)
		}
	}
}

func TestExecErrorHasNoExitCode(t *testing.T) {
	// Only the commands that pass a code on end with it: any other error must be printed.
	err := fmt.Errorf("lab: %w", &ExecError{Host: "h", Cmd: []string{"x"}, Code: 3, Stderr: "why"})
	if _, ok := ExitStatus(err); ok {
		t.Error("an ExecError carries an exit code")
	}
	if code, ok := ExitStatus(fmt.Errorf("lab: %w", exitStatus(3))); !ok || code != 3 {
		t.Errorf("exit status 3 is %d, %v", code, ok)
	}
	if err.Error() != "lab: x on h: exit status 3: why" {
		t.Error(err)
	}
}
