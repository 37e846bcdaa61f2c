package podinit

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"sync"
	"syscall"

	"weft/internal/runtime"
)

// server answers the agent.
type server struct {
	dir   string
	sb    *runtime.Sandbox
	log   *slog.Logger
	procs *procs

	mu         sync.Mutex
	containers map[string]*container
	changed    chan struct{} // closed and replaced at every exit
}

func newServer(dir string, sb *runtime.Sandbox, log *slog.Logger) *server {
	return &server{
		dir: dir, sb: sb, log: log, procs: newProcs(),
		containers: map[string]*container{}, changed: make(chan struct{}),
	}
}

func (s *server) serve(l net.Listener) error {
	for {
		c, err := l.Accept()
		if err != nil {
			return fmt.Errorf("accept: %w", err)
		}
		if u, ok := c.(*net.UnixConn); ok {
			go s.answer(newConn(u))
		}
	}
}

// answer serves one connection.
func (s *server) answer(c *Conn) {
	defer func() { _ = c.Close() }()
	defer func() {
		for _, f := range c.Files {
			_ = f.Close()
		}
	}()
	var req Request
	if err := c.dec.Decode(&req); err != nil {
		return // the agent died
	}
	reply, err := s.do(c, &req)
	if err != nil {
		reply = failure(err)
	}
	_ = c.send(reply, nil) // an agent that has died asks again
}

func (s *server) do(c *Conn, req *Request) (Reply, error) {
	switch {
	case req.Op == OpStart && req.Start != nil:
		status, err := s.start(req.Start)
		return Reply{Status: status}, err
	case req.Op == OpStop:
		s.stop(req.Name, req.Grace, closed(c))
		return Reply{}, nil
	case req.Op == OpExec && req.Exec != nil && len(c.Files) == 3:
		code, err := s.exec(c, req.Name, req.Exec)
		return Reply{ExitCode: &code}, err
	case req.Op == OpWatch:
		s.watch(c)
		return Reply{}, nil
	}
	return Reply{}, fmt.Errorf("request %q is unknown or incomplete", req.Op)
}

// closed returns a channel that is closed when the agent's end of the connection is. The agent sends one request, so nothing else
// comes.
func closed(c *Conn) <-chan struct{} {
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		var b [1]byte
		for {
			if _, err := c.UnixConn.Read(b[:]); err != nil {
				return
			}
		}
	}()
	return gone
}

// watch sends a reply now and after every exit.
func (s *server) watch(c *Conn) {
	gone := closed(c)
	for {
		s.mu.Lock()
		changed := s.changed
		s.mu.Unlock()
		if c.send(Reply{}, nil) != nil {
			return
		}
		select {
		case <-changed:
		case <-gone:
			return
		}
	}
}

// exec runs a command in a container's environment; it dies with the connection.
func (s *server) exec(c *Conn, name string, e *Exec) (int, error) {
	s.mu.Lock()
	ctr := s.containers[name]
	s.mu.Unlock()
	if ctr == nil || ctr.ended() {
		return 0, fmt.Errorf("container %q is not running: %w", name, runtime.ErrNotFound)
	}
	env := ctr.env
	if e.TTY && !ctr.tty {
		env = append(slices.Clip(env), "TERM=xterm")
	}
	pid, exit, err := s.procs.start(&program{argv: e.Argv, env: env, dir: ctr.dir, fds: [3]*os.File(c.Files), tty: e.TTY})
	if err != nil {
		return 0, err
	}
	for _, f := range c.Files { // or the agent never sees the end of the output
		_ = f.Close()
	}
	c.Files = nil
	gone := closed(c)
	if err := c.send(Reply{}, nil); err != nil {
		s.procs.signal(pid, syscall.SIGKILL, true)
	}
	select {
	case code := <-exit:
		return code, nil
	case <-gone:
		s.procs.signal(pid, syscall.SIGKILL, true)
		return <-exit, errors.New("the agent closed the connection")
	}
}
