// Package podinit is the durable side of a process pod: PID 1 of the pod's namespaces, a small program that outlives the agent.
//
// It holds the namespaces, starts containers and exec'd commands inside them when the agent asks over a unix socket, writes their
// logs, reaps them and writes down how they ended. Everything the next agent must know is in files of the pod's directory:
//
//	sandbox.json          what the agent asked for (Spec), written by the agent
//	init.json             who holds the namespaces (Identity), written here when all is ready
//	containers/NAME.json  runtime.ContainerStatus with the PID as the pod sees it, written here
//	etc/                  hosts, hostname and resolv.conf as the pod sees them
//	init.sock, lock, init.log
//
// Floor 3, edges.
package podinit

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"weft/internal/runtime"
)

// Files of a pod's directory.
const (
	SandboxFile   = "sandbox.json"
	IdentityFile  = "init.json"
	ContainersDir = "containers"
	LockFile      = "lock"
	LogFile       = "init.log"
	socketFile    = "init.sock"
	etcDir        = "etc"
)

// ReadyFD is the descriptor on which the new pod-init tells its starter, before it closes it, "ok" or what went wrong.
const ReadyFD = 3

// ReadyOK is what a ready pod-init writes on ReadyFD.
const ReadyOK = "ok"

// Spec is what the agent asks a pod's init to hold.
type Spec struct {
	runtime.Sandbox
	CreatedAt time.Time
}

// Command is the hidden command `weft pod-init DIR`, started by the runtime as PID 1 of new namespaces.
func Command() *cobra.Command {
	return &cobra.Command{
		Use:    "pod-init DIR",
		Short:  "hold the namespaces of a process pod (started by the agent)",
		Args:   cobra.ExactArgs(1),
		Hidden: true,
		RunE: func(_ *cobra.Command, args []string) error {
			if os.Getpid() != 1 {
				return errors.New("pod-init only runs as PID 1 of a pod's namespaces: the agent starts it")
			}
			return run(args[0])
		},
	}
}

// run makes the pod's inside and serves until it is killed.
func run(dir string) error {
	ready := os.NewFile(ReadyFD, "ready")
	if err := closeInherited(); err != nil {
		_, _ = ready.WriteString(err.Error())
		return err
	}
	s, l, err := prepare(dir)
	if err != nil {
		_, _ = ready.WriteString(err.Error()) // nobody may listen any more: the error is returned as well
		return err
	}
	// A signal without a handler ends a Go program, also as PID 1; no container may end the pod by signalling its init. Handlers,
	// unlike SIG_IGN, are not inherited by what is started here.
	ignored := make(chan os.Signal, 1)
	signal.Notify(ignored, syscall.SIGHUP, syscall.SIGINT, syscall.SIGTERM, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2)
	go s.procs.reap()
	_, _ = ready.WriteString(ReadyOK) // the agent may have died since: the next one finds init.json
	_ = ready.Close()
	return s.serve(l)
}

// closeInherited closes what the agent itself was started with: who reads from a pipe that it passed on would wait for the end of the
// pod. What this program has opened is close-on-exec, what it inherited is not.
func closeInherited() error {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return fmt.Errorf("list own descriptors: %w", err)
	}
	for _, e := range entries {
		fd, err := strconv.Atoi(e.Name())
		if err != nil || fd <= ReadyFD {
			continue
		}
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err == nil && flags&unix.FD_CLOEXEC == 0 {
			_ = unix.Close(fd)
		}
	}
	unix.CloseOnExec(ReadyFD)
	return nil
}

// prepare takes the pod's lock, makes mounts, hostname, lo and the socket, and writes the identity last.
func prepare(dir string) (*server, net.Listener, error) {
	// /proc is still the host's here: its "self" is this process as the agent sees it.
	id, err := ownIdentity()
	if err != nil {
		return nil, nil, err
	}
	if err := takeLock(filepath.Join(dir, LockFile)); err != nil {
		return nil, nil, err
	}
	var spec Spec
	if err := ReadJSON(filepath.Join(dir, SandboxFile), &spec); err != nil {
		return nil, nil, fmt.Errorf("read sandbox: %w", err)
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	if err := makeInside(dir, &spec.Sandbox, log); err != nil {
		return nil, nil, err
	}
	l, err := listen(dir)
	if err != nil {
		return nil, nil, err
	}
	if err := WriteJSON(filepath.Join(dir, IdentityFile), id); err != nil {
		return nil, nil, fmt.Errorf("write identity: %w", err)
	}
	if err := os.WriteFile("/proc/self/comm", []byte("pod-init"), 0); err != nil {
		log.Warn("name own process", "err", err)
	}
	return newServer(dir, &spec.Sandbox, log), l, nil
}

// takeLock makes this process the only init of the pod's directory; the lock goes with the process.
func takeLock(path string) error {
	fd, err := unix.Open(path, unix.O_CREAT|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return fmt.Errorf("open lock: %w", err)
	}
	if err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return fmt.Errorf("lock %s, held by another init of the same pod: %w", path, err)
	}
	return nil // the descriptor stays open for good
}
