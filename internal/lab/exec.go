package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"weft/internal/lab/host"
)

// ExecError says that a command on a host ended with a code other than 0.
type ExecError struct {
	Host   string
	Cmd    []string
	Code   int    // 128 + signal for a command that a signal ended
	Stderr string // its last lines, when they were not passed on
}

// Error implements error.
func (e *ExecError) Error() string {
	text := fmt.Sprintf("%s on %s: exit status %d", strings.Join(e.Cmd, " "), e.Host, e.Code)
	if e.Stderr != "" {
		text += ": " + e.Stderr
	}
	return text
}

// Stdio is where a command's input and outputs go; nil is nowhere.
type Stdio struct {
	In       io.Reader
	Out, Err io.Writer
}

// Exec runs a command on a host, in all its namespaces, and returns its standard output. The error is an *ExecError when the command
// ran and failed. When ctx ends the command is killed.
func (l *Lab) Exec(ctx context.Context, hostName string, cmd ...string) (string, error) {
	var out, stderr bytes.Buffer
	err := l.ExecIO(ctx, hostName, Stdio{Out: &out, Err: &stderr}, cmd...)
	if e, ok := errors.AsType[*ExecError](err); ok {
		e.Stderr = lastLines(stderr.String(), 5)
	}
	return out.String(), err
}

// ExecIO runs a command on a host with the given input and outputs.
func (l *Lab) ExecIO(ctx context.Context, hostName string, s Stdio, cmd ...string) error {
	return l.enter(ctx, hostName, s, false, cmd)
}

// all are the namespaces of a host as flags of nsenter(1).
var all = []string{"--mount", "--uts", "--ipc", "--net", "--pid"}

func (l *Lab) enter(ctx context.Context, hostName string, s Stdio, tty bool, argv []string) error {
	if len(argv) == 0 {
		return errors.New("no command given")
	}
	cmd, err := l.nsenter(ctx, hostName, all, argv)
	if err != nil {
		return err
	}
	cmd.Env = append(host.Env(hostName), passOn("TERM", "COLORTERM")...)
	return l.runCommand(cmd, hostName, s, tty, argv)
}

// nsenter makes the command that enters namespaces of a host: Go cannot join a user namespace, as it always has several threads.
func (l *Lab) nsenter(ctx context.Context, hostName string, namespaces, argv []string) (*exec.Cmd, error) {
	tool, err := host.Find("nsenter")
	if err != nil {
		return nil, fmt.Errorf("find nsenter(1) of package util-linux: %w", err)
	}
	pid, err := l.PID(ctx, hostName)
	if err != nil {
		if host.IsGone(err) {
			return nil, fmt.Errorf("host %s of lab %s is gone: %w", hostName, l.info.Name, err)
		}
		return nil, err
	}
	args := []string{"--target", strconv.Itoa(pid)}
	if l.info.Rootless {
		// Credentials are kept: the user is root in the lab's user namespace already, and setgroups(2) is refused there.
		args = append(args, "--user", "--preserve-credentials")
	}
	args = append(append(append(args, namespaces...), "--"), argv...)
	return exec.CommandContext(ctx, tool, args...), nil
}

func (l *Lab) runCommand(cmd *exec.Cmd, hostName string, s Stdio, tty bool, argv []string) error {
	cmd.Stdin, cmd.Stdout, cmd.Stderr = s.In, s.Out, s.Err
	if !tty {
		// nsenter forks to enter the PID namespace: both processes are killed through their group. On a terminal they stay in its
		// foreground group, and the terminal's own signals reach them.
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	}
	cmd.WaitDelay = time.Second // a background child may hold the pipes
	err := cmd.Run()
	if errors.Is(err, exec.ErrWaitDelay) {
		return nil
	}
	exit, ok := errors.AsType[*exec.ExitError](err)
	switch {
	case cmd.ProcessState == nil && err != nil:
		return fmt.Errorf("run nsenter: %w", err)
	case !ok:
		return err
	}
	code := exit.ExitCode()
	if ws, ok := exit.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		code = 128 + int(ws.Signal())
	}
	return &ExecError{Host: hostName, Cmd: argv, Code: code}
}

func passOn(names ...string) []string {
	var env []string
	for _, n := range names {
		if v, ok := os.LookupEnv(n); ok {
			env = append(env, n+"="+v)
		}
	}
	return env
}

func lastLines(s string, n int) string {
	lines := strings.Split(strings.TrimRight(s, "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
