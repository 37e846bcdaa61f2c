package process

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"weft/internal/runtime"
	"weft/internal/runtime/process/podinit"
)

// quiet is how long the output of an ended command may pause before it counts as ended too: a process that the command left in the
// background may hold it open.
const quiet = 200 * time.Millisecond

// Exec runs a command in a running container's environment, in all of the pod's namespaces, and returns its exit code when it has
// ended and its output has been passed on. It is killed, with its process group, when ctx ends. A program that is not there is an
// exec.ErrNotFound, a container that does not run a runtime.ErrNotFound.
//
// A read from s.Stdin that is under way when the command ends is not waited for; what it reads is lost.
func (r *Runtime) Exec(ctx context.Context, uid, container string, cmd []string, s runtime.Stream) (int, error) {
	code, err := r.exec(ctx, uid, container, cmd, s)
	if err != nil {
		return 0, fmt.Errorf("exec in container %s: %w", container, err)
	}
	return code, nil
}

func (r *Runtime) exec(ctx context.Context, uid, container string, cmd []string, s runtime.Stream) (int, error) {
	if err := checkName("sandbox UID", uid); err != nil {
		return 0, err
	}
	if !r.identity(uid).Alive() {
		return 0, fmt.Errorf("sandbox %s has no live init: %w", uid, runtime.ErrNotFound)
	}
	p := &pipes{}
	defer p.close()
	if err := p.open(s); err != nil {
		return 0, fmt.Errorf("open standard input and output: %w", err)
	}
	conn, err := podinit.Call(r.dir(uid), &podinit.Request{
		Op: podinit.OpExec, Name: container, Exec: &podinit.Exec{Argv: cmd, TTY: s.TTY},
	}, p.program[:]...)
	if err != nil {
		return 0, err
	}
	defer func() { _ = conn.Close() }()
	p.closeProgram()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	if _, err := conn.Next(); err != nil {
		return 0, errors.Join(ctx.Err(), err)
	}
	p.start(ctx, s)
	reply, err := conn.Next()
	p.drain()
	if err != nil {
		return 0, errors.Join(ctx.Err(), err)
	}
	if reply.ExitCode == nil {
		return 0, errors.New("pod-init answered without an exit code")
	}
	return *reply.ExitCode, nil
}

// pipes are the descriptors between us and an exec'd command.
type pipes struct {
	program  [3]*os.File
	stdin    *os.File
	out, err *os.File
	wg       sync.WaitGroup
	ended    atomic.Bool
	cancel   context.CancelFunc
}

// open makes the pipes, or the terminal.
func (p *pipes) open(s runtime.Stream) (err error) {
	if s.TTY {
		driver, program, err := podinit.OpenTTY()
		if err != nil {
			return err
		}
		p.stdin, p.out = driver, driver
		p.program = [3]*os.File{program, program, program}
		return nil
	}
	if s.Stdin != nil {
		p.program[0], p.stdin, err = os.Pipe()
	} else {
		p.program[0], err = os.Open(os.DevNull)
	}
	if err == nil {
		p.out, p.program[1], err = output(s.Stdout)
	}
	if err == nil {
		p.err, p.program[2], err = output(s.Stderr)
	}
	return err
}

// output makes a pipe, or opens /dev/null for output that nobody wants.
func output(w io.Writer) (ours, program *os.File, err error) {
	if w == nil {
		program, err = os.OpenFile(os.DevNull, os.O_WRONLY, 0)
		return nil, program, err
	}
	return os.Pipe()
}

func (p *pipes) closeProgram() {
	for i, f := range p.program {
		if f != nil {
			_ = f.Close() // of a terminal the same file three times
		}
		p.program[i] = nil
	}
}

func (p *pipes) close() {
	p.closeProgram()
	if p.cancel != nil {
		p.cancel()
	}
	for _, f := range []*os.File{p.stdin, p.out, p.err} {
		if f != nil {
			_ = f.Close()
		}
	}
}

// start begins to copy.
func (p *pipes) start(ctx context.Context, s runtime.Stream) {
	ctx, p.cancel = context.WithCancel(ctx)
	if s.Stdin != nil {
		go func() {
			_, _ = io.Copy(p.stdin, s.Stdin) // a command need not read its input
			if !s.TTY {
				_ = p.stdin.Close()
			}
		}()
	}
	p.copy(s.Stdout, p.out)
	if !s.TTY {
		p.copy(s.Stderr, p.err)
		return
	}
	go func() {
		for {
			select {
			case <-ctx.Done():
				return
			case size, ok := <-s.Resize:
				if !ok {
					return
				}
				_ = podinit.SetSize(p.out, size) // the command may have ended
			}
		}
	}()
}

// copy passes output on until its end, or until it pauses after the command has ended.
func (p *pipes) copy(w io.Writer, r *os.File) {
	if r == nil {
		return
	}
	if w == nil {
		w = io.Discard // a terminal must be read
	}
	p.wg.Go(func() {
		buf := make([]byte, 32<<10)
		for {
			if p.ended.Load() {
				_ = r.SetReadDeadline(time.Now().Add(quiet))
			}
			n, err := r.Read(buf)
			if n > 0 {
				if _, werr := w.Write(buf[:n]); werr != nil {
					w = io.Discard // whoever listened has gone; the command is not blocked by that
				}
			}
			if errors.Is(err, os.ErrDeadlineExceeded) && !p.ended.Load() {
				continue
			}
			if err != nil {
				return // the end; of a terminal EIO
			}
		}
	})
}

// drain waits for the output that is still under way.
func (p *pipes) drain() {
	p.ended.Store(true)
	for _, f := range []*os.File{p.out, p.err} {
		if f != nil {
			_ = f.SetReadDeadline(time.Now().Add(quiet))
		}
	}
	p.wg.Wait()
}
