package host

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"weft/internal/lab/control"
)

// grace is how long a program may take to end after SIGTERM.
const grace = 5 * time.Second

// programs runs the host's programs. As PID 1 it reaps everything, so nobody else may wait for a child: reap tells who ended.
type programs struct {
	host string
	logs *os.Root

	mu    sync.Mutex
	list  []*program // in the order of their first start
	byPID map[int]*program
}

type program struct {
	status control.Status
	spec   control.Spec
	proc   *os.Process
	ended  chan struct{} // closed at its end
}

func newPrograms(host string, logs *os.Root) *programs {
	return &programs{host: host, logs: logs, byPID: map[int]*program{}}
}

// reap collects ended children, the programs' and those that lost their parents, until ctx ends.
func (p *programs) reap(ctx context.Context) {
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGCHLD)
	tick := time.NewTicker(time.Second) // a signal that came before Notify
	defer tick.Stop()
	for {
		for {
			var ws syscall.WaitStatus
			pid, err := syscall.Wait4(-1, &ws, syscall.WNOHANG, nil)
			if err == syscall.EINTR {
				continue
			}
			if pid <= 0 {
				break
			}
			p.end(pid, ws)
		}
		select {
		case <-ended:
		case <-tick.C:
		case <-ctx.Done():
			ctx = context.WithoutCancel(ctx) // stopAll still needs to learn who ended; the process ends soon
		}
	}
}

// end notes the end of a process. Start holds the lock from fork to entry, so a program that ends at once is found.
func (p *programs) end(pid int, ws syscall.WaitStatus) {
	p.mu.Lock()
	defer p.mu.Unlock()
	g := p.byPID[pid]
	if g == nil {
		return
	}
	delete(p.byPID, pid)
	g.status.Running, g.status.PID, g.status.Ended = false, 0, time.Now()
	switch {
	case ws.Signaled():
		g.status.Exit = "signal: " + ws.Signal().String()
	default:
		g.status.Exit = fmt.Sprintf("exit status %d", ws.ExitStatus())
	}
	_ = g.proc.Release() // it was waited for here
	close(g.ended)
}

// Start implements control.Runner.
func (p *programs) Start(name string, s control.Spec) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	g := p.find(name)
	switch {
	case g == nil && len(s.Argv) == 0:
		return fmt.Errorf("start %s on %s: %w", name, p.host, p.unknown())
	case g != nil && g.status.Running:
		return fmt.Errorf("start %s on %s: %w (pid %d)", name, p.host, control.ErrRunning, g.status.PID)
	case len(s.Argv) == 0:
		s = g.spec
	}
	proc, err := p.run(name, s)
	if err != nil {
		return fmt.Errorf("start %s on %s: %w", name, p.host, err)
	}
	if g == nil {
		g = &program{status: control.Status{Name: name, Restarts: -1}}
		p.list = append(p.list, g)
	}
	g.spec, g.proc, g.ended = s, proc, make(chan struct{})
	g.status = control.Status{
		Name: name, Argv: s.Argv, Running: true, PID: proc.Pid, Started: time.Now(), Restarts: g.status.Restarts + 1,
	}
	p.byPID[proc.Pid] = g
	return nil
}

// run starts a process in a session of its own with its output appended to the log.
func (p *programs) run(name string, s control.Spec) (*os.Process, error) {
	path, err := lookPath(s.Argv[0])
	if err != nil {
		return nil, err
	}
	log, err := p.logs.OpenFile(LogName(p.host, name), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	defer log.Close()
	cmd := exec.Command(path, s.Argv[1:]...)
	cmd.Args[0] = s.Argv[0]
	cmd.Env = append(Env(p.host), s.Env...)
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return cmd.Process, nil
}

// LogName is the name of a program's log in the lab's log directory.
func LogName(host, program string) string { return host + "-" + program + ".log" }

func lookPath(name string) (string, error) {
	if strings.Contains(name, "/") {
		return name, nil
	}
	for _, d := range filepath.SplitList(Path) {
		if f := filepath.Join(d, name); unix.Access(f, unix.X_OK) == nil {
			return f, nil
		}
	}
	return "", fmt.Errorf("%s: %w in %s", name, exec.ErrNotFound, Path)
}

func (p *programs) find(name string) *program {
	i := slices.IndexFunc(p.list, func(g *program) bool { return g.status.Name == name })
	if i < 0 {
		return nil
	}
	return p.list[i]
}

// unknown is the error for a name that no program has.
func (p *programs) unknown() error {
	if len(p.list) == 0 {
		return fmt.Errorf("%w: none was ever started", control.ErrNoProgram)
	}
	names := make([]string, len(p.list))
	for i, g := range p.list {
		names[i] = g.status.Name
	}
	return fmt.Errorf("%w: there is %s", control.ErrNoProgram, strings.Join(names, ", "))
}

// Signal implements control.Runner.
func (p *programs) Signal(name string, sig syscall.Signal) error {
	ended, err := p.kill(name, sig)
	if err != nil {
		return fmt.Errorf("send %s to %s on %s: %w", unix.SignalName(sig), name, p.host, err)
	}
	if sig == syscall.SIGKILL {
		<-ended
	}
	return nil
}

func (p *programs) kill(name string, sig syscall.Signal) (<-chan struct{}, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	g := p.find(name)
	switch {
	case g == nil:
		return nil, p.unknown()
	case !g.status.Running:
		return nil, control.ErrStopped
	}
	// A process that was reaped but not yet noted answers os.ErrProcessDone or, at worst, nothing: its end comes.
	return g.ended, g.proc.Signal(sig)
}

// Stop implements control.Runner.
func (p *programs) Stop(name string) error {
	ended, err := p.kill(name, syscall.SIGTERM)
	switch {
	case errors.Is(err, control.ErrStopped):
		return nil
	case err != nil:
		return fmt.Errorf("stop %s on %s: %w", name, p.host, err)
	}
	late := time.NewTimer(grace)
	defer late.Stop()
	select {
	case <-ended:
		return nil
	case <-late.C:
	}
	if _, err := p.kill(name, syscall.SIGKILL); err == nil {
		<-ended
	}
	return nil
}

// stopAll stops the programs, the last one first.
func (p *programs) stopAll() {
	for _, s := range slices.Backward(p.List()) {
		_ = p.Stop(s.Name) // what does not stop ends with the host
	}
}

// List implements control.Runner.
func (p *programs) List() []control.Status {
	p.mu.Lock()
	defer p.mu.Unlock()
	list := make([]control.Status, len(p.list))
	for i, g := range p.list {
		list[i] = g.status
	}
	return list
}
