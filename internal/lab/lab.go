// Package lab makes hosts on one machine: each is a set of namespaces (network, mounts, processes, host name) with a file system,
// addresses and programs of its own, joined by an underlay. It works as root and, in a user namespace, as any user. The machine's own
// network is never touched: the underlay's switch is in namespaces of the lab too.
//
// One process, the supervisor, is PID 1 of the lab: with it everything in the lab ends, however it ended.
//
// Floor 4, programs.
package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"weft/internal/lab/control"
	"weft/internal/lab/host"
	"weft/internal/lab/topology"
)

// DefaultName is the name of a lab that was given none.
const DefaultName = "default"

// Options of Up.
type Options struct {
	Name      string        // DefaultName when empty
	Progress  io.Writer     // a line for everything waited for; nil for none
	HostsOnly bool          // start no programs whatever the hosts' roles
	Attached  bool          // the lab ends with this process or with Lab.Down, whichever comes first
	Keep      bool          // a lab whose programs fail to start stays up, for a look at it; Up returns the error all the same
	Bin       string        // directory of weft, weft-server and kubectl; empty: that of Self, or none with HostsOnly
	Self      string        // the weft binary, or any that calls Helper; empty: this program
	Timeout   time.Duration // of the whole; 0 for a minute
}

// Lab is a lab that is up.
type Lab struct {
	info  info
	dir   string
	lease *os.File // of an attached lab: closing it ends the lab
}

// Open returns the lab of that name. The error is ErrDown when there is none and ErrCrashed when only its files are left.
func Open(name string) (*Lab, error) {
	dir, err := stateDir(name)
	if err != nil {
		return nil, err
	}
	f, err := lock(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("lab %s: %w: start it with: weft lab up%s", name, ErrDown, nameFlag(name))
	case err == nil:
		_ = f.Close()
		return nil, fmt.Errorf("lab %s: %w: logs are in %s, remove it with: weft lab down%s", name, ErrCrashed,
			filepath.Join(dir, "logs"), nameFlag(name))
	case !errors.Is(err, ErrUp):
		return nil, err
	}
	l := &Lab{dir: dir}
	if err := readJSON(dir, &l.info); err != nil {
		return nil, fmt.Errorf("lab %s: %w", name, err)
	}
	return l, nil
}

func nameFlag(name string) string {
	if name == DefaultName {
		return ""
	}
	return " --name " + name
}

// Name is the lab's name.
func (l *Lab) Name() string { return l.info.Name }

// Topology is what the lab is made of.
func (l *Lab) Topology() topology.Topology { return l.info.Topology }

// Rootless says that the lab lives in a user namespace.
func (l *Lab) Rootless() bool { return l.info.Rootless }

// Dir is the lab's state directory.
func (l *Lab) Dir() string { return l.dir }

// LogFile is the path of a program's log.
func (l *Lab) LogFile(hostName, program string) string {
	return filepath.Join(l.dir, "logs", host.LogName(hostName, program))
}

// PID is the process id of a host's first process: its namespaces are in /proc/PID/ns.
func (l *Lab) PID(ctx context.Context, hostName string) (int, error) {
	c, err := l.host(hostName)
	if err != nil {
		return 0, err
	}
	return c.PID(ctx)
}

func (l *Lab) host(name string) (*control.Client, error) {
	if _, ok := l.info.Topology.Host(name); !ok {
		return nil, fmt.Errorf("lab %s has no host %q: hosts are %s", l.info.Name, name, strings.Join(l.info.Topology.Names(), ", "))
	}
	return control.New(control.Socket(l.dir, name)), nil
}

// Run starts a program of the caller's on a host: argv[0] is looked up there. Its output goes to LogFile. It is not started again when
// it ends.
func (l *Lab) Run(ctx context.Context, hostName, program string, argv ...string) error {
	c, err := l.host(hostName)
	if err != nil {
		return err
	}
	return c.Start(ctx, program, control.Spec{Argv: argv})
}

// Start starts a program that was stopped or has ended, as it was started the last time.
func (l *Lab) Start(ctx context.Context, hostName, program string) error {
	return l.Run(ctx, hostName, program)
}

// Stop ends a program: SIGTERM, after five seconds SIGKILL. It returns when the program has ended.
func (l *Lab) Stop(ctx context.Context, hostName, program string) error {
	c, err := l.host(hostName)
	if err != nil {
		return err
	}
	return c.Stop(ctx, program)
}

// Signal sends a signal to a program. After SIGKILL it returns when the program has ended.
func (l *Lab) Signal(ctx context.Context, hostName, program string, sig syscall.Signal) error {
	c, err := l.host(hostName)
	if err != nil {
		return err
	}
	return c.Signal(ctx, program, sig)
}

// Programs lists a host's programs in the order of their first start.
func (l *Lab) Programs(ctx context.Context, hostName string) ([]control.Status, error) {
	c, err := l.host(hostName)
	if err != nil {
		return nil, err
	}
	return c.Programs(ctx)
}

// ReadFile reads a file of a host.
func (l *Lab) ReadFile(ctx context.Context, hostName, path string) ([]byte, error) {
	c, err := l.host(hostName)
	if err != nil {
		return nil, err
	}
	return c.ReadFile(ctx, path)
}

// WriteFile puts a file on a host, mode 0600, with the directories above it. The machine's directories, as /usr, are read-only there.
func (l *Lab) WriteFile(ctx context.Context, hostName, path string, data []byte) error {
	c, err := l.host(hostName)
	if err != nil {
		return err
	}
	return c.WriteFile(ctx, path, data)
}

// Dial opens a connection from a host to an address as the host sees it; network is as in net.Dial.
func (l *Lab) Dial(ctx context.Context, hostName, network, addr string) (net.Conn, error) {
	c, err := l.host(hostName)
	if err != nil {
		return nil, err
	}
	return c.Dial(ctx, network, addr)
}
