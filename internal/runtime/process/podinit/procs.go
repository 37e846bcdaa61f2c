package podinit

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
)

// procs starts and reaps the pod's processes. PID 1 inherits orphans too, so it waits for any child and nothing else waits.
type procs struct {
	mu    sync.Mutex
	exits map[int]chan int // by PID: those started here that have not been reaped
}

func newProcs() *procs { return &procs{exits: map[int]chan int{}} }

// program is what procs starts.
type program struct {
	path string // "": argv[0] is looked for
	argv []string
	env  []string
	dir  string
	fds  [3]*os.File
	tty  bool
}

// start runs the program in a session of its own and returns its PID and the channel that gets its exit code.
func (p *procs) start(prog *program) (int, <-chan int, error) {
	if len(prog.argv) == 0 {
		return 0, nil, errors.New("empty command")
	}
	dir := prog.dir
	if dir == "" {
		dir = "/"
	}
	if st, err := os.Stat(dir); err != nil {
		return 0, nil, fmt.Errorf("working directory: %w", err)
	} else if !st.IsDir() {
		return 0, nil, fmt.Errorf("working directory %s: not a directory", dir)
	}
	path := prog.path
	if path == "" {
		var err error
		if path, err = lookPath(prog.argv[0], dir, prog.env); err != nil {
			return 0, nil, err
		}
	}
	attr := &syscall.ProcAttr{
		Dir: dir, Env: prog.env,
		Sys: &syscall.SysProcAttr{Setsid: true, Setctty: prog.tty}, // Ctty 0: the program's standard input
	}
	for _, f := range prog.fds {
		attr.Files = append(attr.Files, f.Fd()) // Fd also makes it blocking again, as programs expect
	}
	p.mu.Lock() // reap must not see the child before it is in the map
	defer p.mu.Unlock()
	pid, err := syscall.ForkExec(path, prog.argv, attr)
	if err != nil {
		return 0, nil, fmt.Errorf("run %s: %w", path, err)
	}
	exit := make(chan int, 1)
	p.exits[pid] = exit
	return pid, exit, nil
}

// signal signals the process, or its whole process group, unless it has been reaped.
func (p *procs) signal(pid int, sig syscall.Signal, group bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, ok := p.exits[pid]; !ok {
		return
	}
	if group {
		pid = -pid
	}
	_ = syscall.Kill(pid, sig) // a zombie, or one that becomes another group's leader: nothing to do
}

// reap waits for children for good.
func (p *procs) reap() {
	died := make(chan os.Signal, 1)
	signal.Notify(died, syscall.SIGCHLD)
	for {
		p.reapAll()
		<-died
	}
}

func (p *procs) reapAll() {
	for {
		var status syscall.WaitStatus
		p.mu.Lock()
		pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
		exit := p.exits[pid]
		delete(p.exits, pid)
		p.mu.Unlock()
		if err == syscall.EINTR {
			continue
		}
		if err != nil || pid <= 0 {
			return
		}
		if exit != nil {
			exit <- exitCode(status)
		}
	}
}

// exitCode is the status as a shell says it: 128+signal for a signal.
func exitCode(s syscall.WaitStatus) int {
	if s.Signaled() {
		return 128 + int(s.Signal())
	}
	return s.ExitStatus()
}

// lookPath finds a program as execvp(3) does, with the PATH of the program's own environment.
func lookPath(name, dir string, env []string) (string, error) {
	if strings.Contains(name, "/") {
		if !filepath.IsAbs(name) {
			name = filepath.Join(dir, name)
		}
		return name, executable(name)
	}
	path := ""
	for _, kv := range env {
		if v, ok := strings.CutPrefix(kv, "PATH="); ok {
			path = v
		}
	}
	for _, d := range filepath.SplitList(path) {
		if d == "" {
			d = dir
		}
		full := filepath.Join(d, name)
		if executable(full) == nil {
			return full, nil
		}
	}
	return "", fmt.Errorf("program %q: %w (%s)", name, exec.ErrNotFound, path)
}

func executable(path string) error {
	st, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("program %q: no such file: %w", path, exec.ErrNotFound)
	}
	if err != nil {
		return fmt.Errorf("program %q: %w", path, err)
	}
	if st.IsDir() || st.Mode()&0o111 == 0 {
		return fmt.Errorf("program %q: not executable: %w", path, fs.ErrPermission)
	}
	return nil
}
