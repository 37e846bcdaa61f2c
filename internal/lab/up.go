package lab

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"weft/internal/lab/control"
	"weft/internal/lab/topology"
)

// maxSocket is the longest path of a unix socket (unix(7)).
const maxSocket = 107

// Up makes a lab and starts its programs. It returns when the API is ready, all nodes are Ready and all subnets are leased; with
// HostsOnly as soon as the hosts are there. When it fails nothing is left, unless Keep is set.
func Up(ctx context.Context, t topology.Topology, o Options) (*Lab, error) {
	o.Name = cmp.Or(o.Name, DefaultName)
	if err := t.Validate(); err != nil {
		return nil, err
	}
	if err := o.setPaths(); err != nil {
		return nil, err
	}
	if err := Check(!o.HostsOnly && len(t.With(topology.Master)) > 0, o.Bin); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, cmp.Or(o.Timeout, time.Minute), errTimeout)
	defer cancel()
	p := newProgress(o.Progress)
	l, err := makeHosts(ctx, t, o)
	if err != nil {
		return nil, fmt.Errorf("lab %s: %w", o.Name, err)
	}
	p.done("%d hosts: %s", len(t.Hosts), strings.Join(t.Names(), ", "))
	if !o.HostsOnly {
		err = l.startCluster(ctx, p)
	}
	if err != nil && !o.Keep {
		return nil, errors.Join(fmt.Errorf("lab %s: %w\n(it was taken down; --keep leaves it up to look at)", o.Name, err), l.Down())
	}
	if !o.Attached {
		err = errors.Join(err, l.detach())
	}
	if err != nil {
		return nil, fmt.Errorf("lab %s is kept: %w", o.Name, err)
	}
	return l, nil
}

var errTimeout = errors.New("took too long")

func (o *Options) setPaths() error {
	exe, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find own binary: %w", err)
	}
	if o.Self == "" {
		o.Self = "/proc/self/exe"
	} else {
		exe = o.Self
	}
	if o.HostsOnly && o.Bin == "" {
		return nil
	}
	if o.Bin, err = filepath.Abs(cmp.Or(o.Bin, filepath.Dir(exe))); err != nil {
		return fmt.Errorf("find binaries: %w", err)
	}
	return nil
}

func makeHosts(ctx context.Context, t topology.Topology, o Options) (*Lab, error) {
	dir, err := stateDir(o.Name)
	if err != nil {
		return nil, err
	}
	for _, h := range t.Hosts {
		if n := len(control.Socket(dir, h.Name)); n > maxSocket {
			return nil, fmt.Errorf("lab directory %s: path too long for a socket by %d: set %s to a shorter one", dir, n-maxSocket, DirVariable)
		}
	}
	f, err := claim(dir)
	if errors.Is(err, ErrUp) {
		return nil, fmt.Errorf("%w: take it down with: weft lab down%s, or choose another --name", err, nameFlag(o.Name))
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	l := &Lab{dir: dir, info: info{Name: o.Name, Created: time.Now(), Rootless: !privileged(), Bin: o.Bin, Topology: t}}
	if err := l.spawn(ctx, f, o.Self); err != nil {
		return nil, errors.Join(err, removeState(dir))
	}
	return l, nil
}

// spawn starts the supervisor and waits until the hosts are there. On an error it is dead.
func (l *Lab) spawn(ctx context.Context, state *os.File, self string) error {
	if err := os.Mkdir(filepath.Join(l.dir, "logs"), 0o700); err != nil {
		return fmt.Errorf("make log directory: %w", err)
	}
	if err := writeJSON(l.dir, l.info); err != nil {
		return err
	}
	log, err := os.OpenFile(filepath.Join(l.dir, "logs", "supervisor.log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("open supervisor's log: %w", err)
	}
	defer log.Close()
	leaseR, leaseW, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("make pipe: %w", err)
	}
	defer leaseR.Close()
	readyR, readyW, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("make pipe: %w", err)
	}
	defer readyR.Close()
	cmd := exec.Command(self, supervisorCommand, l.dir)
	cmd.Args[0] = "weft"
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = log, log
	cmd.ExtraFiles = []*os.File{state, leaseR, readyW}
	cmd.SysProcAttr = attributes(l.info.Rootless)
	err = cmd.Start()
	_ = readyW.Close()
	if err != nil {
		_ = leaseW.Close()
		return startError(err, l.info.Rootless)
	}
	l.lease = leaseW
	err = l.await(ctx, readyR, cmd.Process.Pid)
	if err != nil {
		_ = leaseW.Close()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		return err
	}
	go func() { _ = cmd.Wait() }() // no zombie; Down asks the kernel
	return nil
}

func (l *Lab) await(ctx context.Context, ready *os.File, pid int) error {
	if err := os.WriteFile(filepath.Join(l.dir, "pid"), []byte(strconv.Itoa(pid)+"\n"), 0o600); err != nil {
		return fmt.Errorf("write supervisor's pid: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = ready.SetReadDeadline(time.Now()) })
	defer stop()
	answer, err := io.ReadAll(io.LimitReader(ready, 4096))
	if ctx.Err() != nil {
		return fmt.Errorf("wait for hosts: %w", context.Cause(ctx))
	}
	if err != nil {
		return fmt.Errorf("wait for hosts: %w", err)
	}
	if text := strings.TrimSpace(string(answer)); text != "ok" {
		if text == "" {
			text = "supervisor ended: " + tail(filepath.Join(l.dir, "logs", "supervisor.log"), 5)
		}
		return errors.New(text)
	}
	return nil
}

// attributes are the supervisor's namespaces. Without root's rights a user namespace gives them, in which the user is root.
func attributes(rootless bool) *syscall.SysProcAttr {
	a := &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS | unix.CLONE_NEWUTS | unix.CLONE_NEWPID | unix.CLONE_NEWIPC,
		Setsid:     true,
	}
	if rootless {
		a.Cloneflags |= unix.CLONE_NEWUSER
		a.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}}
		a.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
	}
	return a
}

// detach lets the lab outlive this process.
func (l *Lab) detach() error {
	if _, err := io.WriteString(l.lease, keep); err != nil {
		return fmt.Errorf("detach from supervisor: %w", err)
	}
	err := l.lease.Close()
	l.lease = nil
	return err
}
