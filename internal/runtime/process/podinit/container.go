package podinit

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"weft/internal/runtime"
)

// drainTime is how long a container's last output is waited for after its end.
const drainTime = time.Second

// container is one run of a container.
type container struct {
	status runtime.ContainerStatus // as in its file; changed only before it is shared and by finish
	env    []string
	dir    string
	tty    bool
	pid    int
	done   chan struct{} // closed when it has ended and its record says so
}

func (c *container) ended() bool {
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

// start starts a container. A container of that name that runs already in the same attempt is the answer; in another attempt it
// is an error.
func (s *server) start(req *Start) (*runtime.ContainerStatus, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if old := s.containers[req.Status.Name]; old != nil && !old.ended() {
		if old.status.Attempt == req.Status.Attempt {
			status := old.status
			return &status, nil
		}
		return nil, fmt.Errorf("container %q still runs its attempt %d", req.Status.Name, old.status.Attempt)
	}
	if err := updateHosts(s.dir, s.sb); err != nil {
		s.log.Warn("hosts file is not current", "err", err)
	}
	std, err := openStdio(req)
	if err != nil {
		return nil, err
	}
	c := &container{
		status: req.Status, env: append(req.Env, marker+req.Status.ID), dir: req.Dir, tty: req.TTY,
		done: make(chan struct{}),
	}
	pid, exit, err := s.procs.start(&program{path: req.Path, argv: req.Argv, env: c.env, dir: c.dir, fds: std.program, tty: req.TTY})
	std.closeProgram()
	if err != nil {
		std.close()
		return nil, err
	}
	c.pid = pid
	c.status.State, c.status.PID, c.status.StartedAt = runtime.Running, pid, time.Now().UTC()
	logged := std.copyLogs(s)
	if err := s.record(&c.status); err != nil { // without a record the next agent would not know it
		s.procs.signal(pid, syscall.SIGKILL, true)
		killMarked(c.status.ID)
		std.close()
		return nil, err
	}
	s.containers[c.status.Name] = c
	status := c.status
	go s.finish(c, exit, std, logged)
	return &status, nil
}

// finish waits for a container's end, writes it down and wakes the agent.
func (s *server) finish(c *container, exit <-chan int, std *stdio, logged *sync.WaitGroup) {
	code := <-exit
	at := time.Now().UTC()
	killMarked(c.status.ID)
	drained := make(chan struct{})
	go func() { logged.Wait(); close(drained) }()
	timer := time.NewTimer(drainTime)
	defer timer.Stop()
	select {
	case <-drained:
	case <-timer.C: // a process that hides from us holds the pipe
	}
	std.close()
	s.mu.Lock()
	defer s.mu.Unlock()
	c.status.State, c.status.PID, c.status.ExitCode, c.status.FinishedAt = runtime.Exited, 0, code, at
	if err := s.record(&c.status); err != nil {
		s.log.Error("exit is not recorded", "container", c.status.Name, "code", code, "err", err)
	}
	close(c.done)
	close(s.changed)
	s.changed = make(chan struct{})
}

// stop ends a container: SIGTERM, SIGKILL after the grace time. It returns when it has ended or the agent has gone, which does not
// save the container.
func (s *server) stop(name string, grace time.Duration, gone <-chan struct{}) {
	s.mu.Lock()
	c := s.containers[name]
	s.mu.Unlock()
	if c == nil || c.ended() {
		return
	}
	if grace > 0 {
		s.procs.signal(c.pid, syscall.SIGTERM, false)
		timer := time.NewTimer(grace)
		defer timer.Stop()
		select {
		case <-c.done:
			return
		case <-timer.C:
		}
	}
	s.procs.signal(c.pid, syscall.SIGKILL, true)
	select {
	case <-c.done:
	case <-gone:
	}
}

// record writes the container's file.
func (s *server) record(status *runtime.ContainerStatus) error {
	dir := filepath.Join(s.dir, ContainersDir)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make records directory: %w", err)
	}
	if err := WriteJSON(filepath.Join(dir, status.Name+".json"), status); err != nil {
		return fmt.Errorf("write record: %w", err)
	}
	return nil
}

// stdio is a container's standard input and output: the program's ends and ours.
type stdio struct {
	program [3]*os.File
	stdin   *os.File // held open so that the program sees no end of input
	streams map[string]*os.File
	log     *criLog
}

// openStdio opens the container's log and its descriptors.
func openStdio(req *Start) (*stdio, error) {
	std := &stdio{streams: map[string]*os.File{}}
	log, err := openLog(req.Status.LogPath)
	if err != nil {
		return nil, err
	}
	std.log = log
	if old := req.Status.Attempt - 2; old >= 0 { // the log of the run before is kept, no older one
		base := filepath.Join(filepath.Dir(req.Status.LogPath), strconv.Itoa(old)+".log")
		_, _ = os.Remove(base), os.Remove(base+".1")
	}
	if req.TTY {
		err = std.openTTY()
	} else {
		err = std.openPipes(req.Stdin)
	}
	if err != nil {
		std.closeProgram()
		std.close()
		return nil, fmt.Errorf("open standard input and output: %w", err)
	}
	return std, nil
}

func (o *stdio) openTTY() error {
	driver, program, err := OpenTTY()
	if err != nil {
		return err
	}
	o.streams["stdout"] = driver
	o.program = [3]*os.File{program, program, program}
	return nil
}

func (o *stdio) openPipes(stdin bool) (err error) {
	if stdin {
		o.program[0], o.stdin, err = os.Pipe()
	} else {
		o.program[0], err = os.Open(os.DevNull)
	}
	for i, name := range []string{"stdout", "stderr"} {
		if err == nil {
			o.streams[name], o.program[i+1], err = os.Pipe()
		}
	}
	return err
}

// closeProgram closes the program's ends, which only the program may hold.
func (o *stdio) closeProgram() {
	for i, f := range o.program {
		if f != nil {
			_ = f.Close() // of a terminal the same file three times
		}
		o.program[i] = nil
	}
}

// close ends copying, also when a process still holds the other end.
func (o *stdio) close() {
	if o.stdin != nil {
		_ = o.stdin.Close()
	}
	for _, f := range o.streams {
		if f != nil {
			_ = f.Close()
		}
	}
	_ = o.log.Close()
}

// copyLogs copies the program's output to the log.
func (o *stdio) copyLogs(s *server) *sync.WaitGroup {
	var wg sync.WaitGroup
	for name, r := range o.streams {
		wg.Go(func() {
			if err := o.log.copyFrom(name, r); err != nil {
				s.log.Error("log is lost", "file", o.log.path, "err", err)
			}
		})
	}
	return &wg
}
