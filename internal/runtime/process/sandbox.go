package process

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"weft/internal/runtime"
	"weft/internal/runtime/process/podinit"
)

// CreateSandbox makes the pod's namespaces, with lo up and no other link, and starts the init that holds them. A sandbox of that UID
// that is alive is the answer as it is; one whose init has died is made anew, its containers' last exits are kept.
func (r *Runtime) CreateSandbox(ctx context.Context, sb runtime.Sandbox) (runtime.SandboxStatus, error) {
	for _, f := range [][2]string{{"sandbox UID", sb.UID}, {"sandbox namespace", sb.Namespace}, {"sandbox name", sb.Name}} {
		if err := checkName(f[0], f[1]); err != nil {
			return runtime.SandboxStatus{}, err
		}
	}
	if len(sb.Hostname) > 64 {
		return runtime.SandboxStatus{}, fmt.Errorf("sandbox hostname %q: longer than the kernel's 64 characters", sb.Hostname)
	}
	unlock := r.lock(sb.UID)
	defer unlock()
	if r.identity(sb.UID).Alive() {
		return r.status(sb.UID)
	}
	if err := r.create(ctx, sb); err != nil {
		return runtime.SandboxStatus{}, fmt.Errorf("create sandbox %s/%s: %w", sb.Namespace, sb.Name, err)
	}
	r.watch(sb.UID)
	return r.status(sb.UID)
}

func (r *Runtime) create(ctx context.Context, sb runtime.Sandbox) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	dir := r.dir(sb.UID)
	_, statErr := os.Stat(dir)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make pod directory: %w", err)
	}
	if statErr == nil {
		if err := errors.Join(unlocked(ctx, dir), r.buryContainers(sb.UID)); err != nil {
			return err
		}
		if err := os.Remove(filepath.Join(dir, podinit.IdentityFile)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("remove old identity: %w", err)
		}
	}
	spec := podinit.Spec{Sandbox: sb, CreatedAt: time.Now().UTC()}
	err := podinit.WriteJSON(filepath.Join(dir, podinit.SandboxFile), &spec)
	if err != nil {
		err = fmt.Errorf("write sandbox: %w", err)
	} else {
		err = r.launch(ctx, dir, sb.HostNetwork)
	}
	if err != nil && statErr != nil { // nothing half-made stays; what was there before does
		err = errors.Join(err, os.RemoveAll(dir))
	}
	return err
}

// launch starts pod-init in new namespaces and waits until it is ready.
func (r *Runtime) launch(ctx context.Context, dir string, hostNetwork bool) error {
	logFile, err := os.OpenFile(filepath.Join(dir, podinit.LogFile), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("open log of pod-init: %w", err)
	}
	defer logFile.Close()
	ready, child, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("make pipe: %w", err)
	}
	defer ready.Close()
	defer child.Close()
	cmd := r.initProcess(dir, hostNetwork)
	cmd.Stdout, cmd.Stderr = logFile, logFile
	cmd.ExtraFiles = []*os.File{child} // podinit.ReadyFD
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start pod-init in new namespaces: %w", err)
	}
	go func() { _ = cmd.Wait() }() // only reaps: how it ends is seen on its socket
	_ = child.Close()
	stop := context.AfterFunc(ctx, func() { _ = ready.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	answer, err := io.ReadAll(io.LimitReader(ready, 4096))
	switch {
	case err != nil:
		_ = cmd.Process.Kill()
		return fmt.Errorf("wait for pod-init: %w", errors.Join(ctx.Err(), err))
	case string(answer) == podinit.ReadyOK:
		return nil
	case len(answer) == 0:
		answer = []byte("died, see its log: " + lastLine(logFile.Name()))
	}
	_ = cmd.Process.Kill()
	return fmt.Errorf("pod-init: %s", answer)
}

// initProcess is the command that becomes PID 1 of the pod. It has its own session and no death signal: it outlives the agent.
func (r *Runtime) initProcess(dir string, hostNetwork bool) *exec.Cmd {
	argv := r.self("pod-init", dir)
	cmd := &exec.Cmd{
		Path: r.exe[0], Args: argv, Dir: "/",
		// A small heap in few threads, and no watch on the CPU quota: most of the time it sleeps.
		Env: []string{"PATH=" + hostPath, "GOMAXPROCS=1", "GOGC=25", "GODEBUG=containermaxprocs=0,updatemaxprocs=0"},
		SysProcAttr: &syscall.SysProcAttr{
			Setsid:     true,
			Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWPID,
		},
	}
	if !hostNetwork {
		cmd.SysProcAttr.Cloneflags |= unix.CLONE_NEWNET
	}
	return cmd
}

// self is the command line of one of this program's own commands.
func (r *Runtime) self(args ...string) []string {
	return append(append([]string{"weft"}, r.exe[1:]...), args...)
}

// lastLine is the end of a small file, for an error message.
func lastLine(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	text := strings.TrimSpace(string(b))
	return text[strings.LastIndexByte(text, '\n')+1:]
}

// RemoveSandbox kills everything in the pod and removes its files and logs. A pod that is not there is removed already.
func (r *Runtime) RemoveSandbox(ctx context.Context, uid string) error {
	if err := checkName("sandbox UID", uid); err != nil {
		return err
	}
	unlock := r.lock(uid)
	defer unlock()
	dir := r.dir(uid)
	if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err := kill(ctx, r.identity(uid)); err != nil {
		return fmt.Errorf("remove sandbox %s: %w", uid, err)
	}
	if err := unlocked(ctx, dir); err != nil {
		return fmt.Errorf("remove sandbox %s: %w", uid, err)
	}
	logs, err := filepath.Glob(filepath.Join(r.logs, "*_"+uid))
	if err != nil {
		return fmt.Errorf("find logs of sandbox %s: %w", uid, err)
	}
	for _, path := range append(logs, dir) { // the record last: until then a new agent knows what to remove
		if err := os.RemoveAll(path); err != nil {
			return fmt.Errorf("remove sandbox %s: %w", uid, err)
		}
	}
	return nil
}

// unlocked waits until no init has the pod's directory: one may be ending, or a former agent has started one that has not written its
// identity yet.
func unlocked(ctx context.Context, dir string) error {
	fd, err := unix.Open(filepath.Join(dir, podinit.LockFile), unix.O_RDWR|unix.O_CLOEXEC, 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open lock: %w", err)
	}
	defer func() { _ = unix.Close(fd) }()
	const tries, pause = 200, 10 * time.Millisecond
	tick := time.NewTicker(pause)
	defer tick.Stop()
	for range tries {
		if err = unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
	return fmt.Errorf("an init of the pod is starting or ending, try again: %w", err)
}

// kill ends the pod's init and waits for it: with it the kernel ends every process in its PID namespace (pid_namespaces(7)).
func kill(ctx context.Context, id podinit.Identity) error {
	f, err := id.Open()
	if errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	raw, err := f.SyscallConn()
	if err != nil {
		return fmt.Errorf("use process descriptor: %w", err)
	}
	var killErr error
	err = raw.Control(func(fd uintptr) { killErr = unix.PidfdSendSignal(int(fd), unix.SIGKILL, nil, 0) })
	if err = errors.Join(err, killErr); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("kill pod-init: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = f.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	err = raw.Read(func(fd uintptr) bool { // readable when the process has ended
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
		return n > 0 || err != nil
	})
	if err != nil {
		return fmt.Errorf("wait for the end of pod-init: %w", errors.Join(ctx.Err(), err))
	}
	return nil
}

// dropOrphanLogs removes logs of pods that have no directory any more, as after a reboot.
func (r *Runtime) dropOrphanLogs() error {
	entries, err := os.ReadDir(r.logs)
	if err != nil {
		return fmt.Errorf("list logs: %w", err)
	}
	for _, e := range entries {
		uid := e.Name()[strings.LastIndexByte(e.Name(), '_')+1:]
		if _, err := os.Stat(r.dir(uid)); errors.Is(err, os.ErrNotExist) {
			if err := os.RemoveAll(filepath.Join(r.logs, e.Name())); err != nil {
				return fmt.Errorf("remove old logs: %w", err)
			}
		}
	}
	return nil
}
