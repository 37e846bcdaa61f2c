package process_test

import (
	"context"
	"errors"
	"io"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"weft/internal/runtime"
)

func newExecRig(t *testing.T) *rig {
	t.Helper()
	g := newRig(t)
	g.create("u1")
	c := shell("main", "exec sleep 1000")
	c.Env = []string{"COLOUR=blue"}
	c.WorkingDir = "/usr"
	g.start("u1", c)
	return g
}

func TestExec(t *testing.T) {
	g := newExecRig(t)
	for _, tt := range []struct {
		script, stdin, out, err string
		code                    int
	}{
		{script: "echo out; echo err >&2; exit 5", out: "out\n", err: "err\n", code: 5},
		{script: "cat; pwd; echo $COLOUR", stdin: "from stdin\n", out: "from stdin\n/usr\nblue\n"},
		{script: "kill -KILL $$", code: 137},
		{script: "sleep 1000 & echo done", out: "done\n"}, // does not wait for who holds the output open
	} {
		var out, errOut strings.Builder
		stream := runtime.Stream{Stdout: &out, Stderr: &errOut}
		if tt.stdin != "" {
			stream.Stdin = strings.NewReader(tt.stdin)
		}
		code, err := g.Exec(t.Context(), "u1", "main", []string{"sh", "-c", tt.script}, stream)
		if err != nil || code != tt.code || out.String() != tt.out || errOut.String() != tt.err {
			t.Errorf("%s: code %d, error %v, out %q, err %q", tt.script, code, err, out.String(), errOut.String())
		}
	}
	if code, err := g.Exec(t.Context(), "u1", "main", []string{"sh", "-c", "echo unheard; exit 2"}, runtime.Stream{}); code != 2 || err != nil {
		t.Errorf("without streams: %d, %v", code, err)
	}
}

// slowWriter takes its time, as a network does.
type slowWriter struct{ n int }

func (w *slowWriter) Write(p []byte) (int, error) {
	timer := time.NewTimer(2 * time.Millisecond)
	defer timer.Stop()
	<-timer.C
	w.n += len(p)
	return len(p), nil
}

func TestExecMuchOutput(t *testing.T) {
	g := newExecRig(t)
	const size = 8 << 20
	w := &slowWriter{}
	code, err := g.Exec(t.Context(), "u1", "main", []string{"head", "-c", "8388608", "/dev/zero"}, runtime.Stream{Stdout: w})
	if code != 0 || err != nil || w.n != size {
		t.Errorf("code %d, %v, %d bytes of %d", code, err, w.n, size)
	}
}

func TestExecErrors(t *testing.T) {
	g := newExecRig(t)
	run := func(uid, name string, cmd ...string) error {
		_, err := g.Exec(t.Context(), uid, name, cmd, runtime.Stream{})
		return err
	}
	if err := run("u1", "main", "no-such-program"); !errors.Is(err, exec.ErrNotFound) {
		t.Errorf("unknown program: %v", err)
	}
	for _, c := range [][2]string{{"u1", "other"}, {"u2", "main"}} {
		if err := run(c[0], c[1], "true"); !errors.Is(err, runtime.ErrNotFound) {
			t.Errorf("%v: %v", c, err)
		}
	}
	if err := run("u1", "main"); err == nil {
		t.Error("empty command accepted")
	}
}

func TestExecEndsWithContext(t *testing.T) {
	g := newExecRig(t)
	ctx, cancel := context.WithCancel(t.Context())
	out, in := io.Pipe()
	done := make(chan error, 1)
	go func() {
		_, err := g.Exec(ctx, "u1", "main", []string{"sh", "-c", "echo up; sleep 2000; :"}, runtime.Stream{Stdout: in})
		done <- err
	}()
	if _, err := out.Read(make([]byte, 3)); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want the context's", err)
	}
	eventually(t, "command is killed", func() bool {
		return g.sh("u1", "main", "cat /proc/[0-9]*/cmdline | tr '\\0' ' ' | grep -c 'sleep 200[0]' || true") == "0\n"
	})
}

func TestExecEndsWithContainer(t *testing.T) {
	g := newExecRig(t)
	up, in := io.Pipe()
	done := make(chan int, 1)
	go func() {
		code, err := g.Exec(t.Context(), "u1", "main", []string{"sh", "-c", "echo up; sleep 2000; :"}, runtime.Stream{Stdout: in})
		if err != nil {
			t.Error(err)
		}
		done <- code
	}()
	if _, err := up.Read(make([]byte, 3)); err != nil {
		t.Fatal(err)
	}
	if err := g.StopContainer(t.Context(), "u1", "main", 0); err != nil {
		t.Fatal(err)
	}
	if code := <-done; code != 137 {
		t.Errorf("exit code %d, want 137", code)
	}
}

// screen collects a terminal's output.
type screen struct {
	mu   sync.Mutex
	text strings.Builder
}

func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(p)
}

func (s *screen) has(text string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Contains(s.text.String(), text)
}

func TestExecTTY(t *testing.T) {
	g := newExecRig(t)
	sizes := make(chan runtime.Size, 1)
	keys, typing := io.Pipe()
	seen := &screen{}
	done := make(chan int, 1)
	go func() {
		code, err := g.Exec(t.Context(), "u1", "main", []string{"sh"}, runtime.Stream{Stdin: keys, Stdout: seen, TTY: true, Resize: sizes})
		if err != nil {
			t.Error(err)
		}
		done <- code
	}()
	typeIn := func(line string) {
		t.Helper()
		if _, err := io.WriteString(typing, line); err != nil {
			t.Fatal(err)
		}
	}
	typeIn("test -t 0 && echo is-a''-tty\r")
	eventually(t, "terminal", func() bool { return seen.has("is-a-tty\r\n") })
	sizes <- runtime.Size{Width: 123, Height: 45}
	eventually(t, "size", func() bool {
		typeIn("stty size\r")
		return seen.has("45 123")
	})
	typeIn("sleep 1000\r")
	eventually(t, "sleep", func() bool { return g.sh("u1", "main", "cat /proc/[0-9]*/comm | grep -c sleep") == "2\n" })
	typeIn("\x03") // only a controlling terminal makes a signal of it
	typeIn("exit 6\r")
	if code := <-done; code != 6 {
		t.Errorf("exit code %d, want 6", code)
	}
}

func TestContainerTTY(t *testing.T) {
	g := newRig(t)
	g.create("u1")
	c := shell("main", "test -t 0 && test -t 1 && tty && exit 3")
	c.TTY, c.Stdin = true, true
	g.start("u1", c)
	st := g.waitExit("u1", "main")
	if log := read(t, st.LogPath); st.ExitCode != 3 || !strings.Contains(log, "stdout F /dev/pts/") {
		t.Errorf("exit code %d, log %q", st.ExitCode, log)
	}
}

func TestStdin(t *testing.T) {
	g := newRig(t)
	g.create("u1")
	g.start("u1", shell("closed", "cat; exit 4")) // no input: ends at once
	if c := g.waitExit("u1", "closed"); c.ExitCode != 4 {
		t.Errorf("%+v", c)
	}
	c := shell("open", "cat")
	c.Stdin = true
	g.start("u1", c)
	if got := g.container("u1", "open"); got.State != runtime.Running {
		t.Errorf("%+v, want it to wait for input", got)
	}
	g.start("u1", runtime.Container{Name: "busy", Image: "busybox", Stdin: true}) // a shell that waits
	if got := g.container("u1", "busy"); got.State != runtime.Running {
		t.Errorf("%+v", got)
	}
}
