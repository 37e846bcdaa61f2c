package lab_test

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"weft/internal/lab"
	"weft/internal/lab/control"
)

func TestPrograms(t *testing.T) {
	l := up(t, "programs", 2)
	ctx := t.Context()
	// A program that answers on port 80 of h1, logs, and leaves an orphan for the host to reap.
	script := "echo started; (sleep 0.05 &) ; mkdir -p /var/www; echo hello > /var/www/index.html; exec busybox httpd -f -vv -h /var/www -p 80"
	if err := l.Run(ctx, "h1", "web", "sh", "-c", script); err != nil {
		t.Fatal(err)
	}
	eventually(t, "an answer of web", func() bool {
		out, err := get(t, l, "h2", "h1:80", "/index.html")
		return err == nil && out == "hello\n"
	})
	if err := l.Run(ctx, "h1", "web", "true"); !errors.Is(err, control.ErrRunning) {
		t.Errorf("second start: %v", err)
	}
	eventually(t, "the orphan to be reaped", func() bool { return run(t, l, "h1", "ps ax | grep -c '[d]efunct' || true") == "0" })
	if _, err := get(t, l, "h2", "172.17.42.31:81", "/"); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("dial of a closed port: %v", err)
	}

	if err := l.Signal(ctx, "h1", "web", syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	s := one(t, l, "h1")
	if s.Running || s.Exit != "signal: killed" || s.Restarts != 0 {
		t.Errorf("after kill: %+v", s)
	}
	if err := l.Signal(ctx, "h1", "web", syscall.SIGTERM); !errors.Is(err, control.ErrStopped) {
		t.Errorf("signal to what ended: %v", err)
	}
	if err := l.Start(ctx, "h1", "web"); err != nil {
		t.Fatal(err)
	}
	if s := one(t, l, "h1"); !s.Running || s.Restarts != 1 || s.PID == 0 {
		t.Errorf("after start: %+v", s)
	}
	eventually(t, "an answer after the start", func() bool { _, err := get(t, l, "h2", "h1:80", "/index.html"); return err == nil })
	if err := l.Stop(ctx, "h1", "web"); err != nil {
		t.Fatal(err)
	}
	if err := l.Stop(ctx, "h1", "web"); err != nil {
		t.Errorf("second stop: %v", err)
	}
	log, err := os.ReadFile(l.LogFile("h1", "web"))
	if err != nil || strings.Count(string(log), "started\n") != 2 || !strings.Contains(string(log), "index.html") {
		t.Errorf("log: %v\n%s", err, log)
	}
	for _, name := range []string{"none", "../x"} {
		if err := l.Start(ctx, "h1", name); !errors.Is(err, control.ErrNoProgram) {
			t.Errorf("start %s: %v", name, err)
		}
	}
	if err := l.Run(ctx, "h1", "bad", "no-such-program"); err == nil || !strings.Contains(err.Error(), "no-such-program") {
		t.Errorf("start of a program that is not there: %v", err)
	}
}

func one(t *testing.T, l *lab.Lab, host string) control.Status {
	t.Helper()
	list, err := l.Programs(t.Context(), host)
	if err != nil || len(list) != 1 {
		t.Fatalf("programs: %v %v", list, err)
	}
	return list[0]
}

// get asks a web server at addr from a host, with both names and addresses as the host sees them.
func get(t *testing.T, l *lab.Lab, host, addr, path string) (string, error) {
	t.Helper()
	conn, err := l.Dial(t.Context(), host, "tcp", addr)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "GET "+path+" HTTP/1.0\r\n\r\n"); err != nil {
		return "", err
	}
	answer, err := io.ReadAll(conn)
	_, body, _ := strings.Cut(string(answer), "\r\n\r\n")
	return body, err
}

// TestStubborn stops a program that ignores SIGTERM.
func TestStubborn(t *testing.T) {
	l := up(t, "stubborn", 1)
	if err := l.Run(t.Context(), "h1", "deaf", "sh", "-c", "trap '' TERM; echo deaf; while :; do sleep 1; done"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the trap", func() bool {
		b, err := os.ReadFile(l.LogFile("h1", "deaf"))
		return err == nil && len(b) > 0
	})
	start := time.Now()
	if err := l.Stop(t.Context(), "h1", "deaf"); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(start); took < 4*time.Second || one(t, l, "h1").Exit != "signal: killed" {
		t.Errorf("after %s: %+v", took, one(t, l, "h1"))
	}
}

func TestFiles(t *testing.T) {
	l := up(t, "files", 2)
	ctx := t.Context()
	for _, path := range []string{"/tmp/a", "/etc/weft/a", "/run/weft/deep/a", "/var/lib/weft/a", "/root/a"} {
		if err := l.WriteFile(ctx, "h1", path, []byte("one")); err != nil {
			t.Fatal(err)
		}
		if got, err := l.ReadFile(ctx, "h1", path); err != nil || string(got) != "one" {
			t.Errorf("%s: %q %v", path, got, err)
		}
		if _, err := l.ReadFile(ctx, "h2", path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s of h1 on h2: %v", path, err)
		}
		if _, err := os.Stat(path); err == nil {
			t.Errorf("%s is on the machine", path)
		}
	}
	if err := l.WriteFile(ctx, "h1", "etc/x", nil); err == nil {
		t.Error("relative path was taken")
	}
	if err := l.WriteFile(ctx, "h1", "/usr/x", nil); err == nil {
		t.Error("the machine's /usr was written")
	}
	if out := run(t, l, "h1", "wc -l < /etc/passwd"); out == "0" {
		t.Error("/etc/passwd of the machine is not there")
	}
}
