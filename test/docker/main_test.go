package docker

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"weft/internal/lab"
	"weft/internal/lab/topology"
)

// bin is the directory of the binaries under test.
var bin string

func TestMain(m *testing.M) {
	if code, ran := lab.Helper(os.Args[1:]); ran {
		os.Exit(code)
	}
	dir := os.Getenv("WEFT_BIN")
	if dir == "" {
		dir = "../../bin"
	}
	var err error
	if bin, err = filepath.Abs(dir); err == nil {
		_, err = os.Stat(filepath.Join(bin, "weft"))
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "no program: %v: run make build, or set WEFT_BIN to where it is\n", err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// hosts is a lab of plain hosts; what runs on them the test starts itself.
type hosts struct {
	*lab.Lab
	t *testing.T
}

func up(t *testing.T, n int) *hosts {
	t.Helper()
	l, err := lab.Up(t.Context(), topology.HostsOnly(n), lab.Options{
		Name: fmt.Sprintf("docker-%d", os.Getpid()), Attached: true, HostsOnly: true, Bin: bin, Self: filepath.Join(bin, "weft"), Timeout: time.Minute,
	})
	if err != nil {
		t.Fatal(err)
	}
	h := &hosts{l, t}
	t.Cleanup(func() {
		if t.Failed() {
			h.logs()
		}
		if err := l.Down(); err != nil {
			t.Error(err)
		}
	})
	return h
}

// logs shows the end of every program's log.
func (h *hosts) logs() {
	for _, host := range h.Topology().Names() {
		out, err := h.text(context.Background(), host, "tail -n 25 /var/log/*.log; ip route; iptables-save")
		h.t.Logf("%s:\n%s%v", host, out, err)
	}
}

// text runs a shell's command line on a host and returns all it prints.
func (h *hosts) text(ctx context.Context, host, command string) (string, error) {
	ctx, stop := context.WithTimeout(ctx, 30*time.Second)
	defer stop()
	var out bytes.Buffer
	err := h.ExecIO(ctx, host, lab.Stdio{Out: &out, Err: &out}, "sh", "-c", command)
	return strings.TrimSpace(out.String()), err
}

func (h *hosts) must(host, command string) string {
	h.t.Helper()
	out, err := h.text(h.t.Context(), host, command)
	if err != nil {
		h.t.Fatalf("%s: %s: %v\n%s", host, command, err, out)
	}
	return out
}

// background starts a program on a host; it ends with the lab.
func (h *hosts) background(host, name, command string) {
	h.t.Helper()
	h.must(host, fmt.Sprintf("{ %s; } >>/var/log/%s.log 2>&1 </dev/null &", command, name))
}

// eventually repeats a command on a host until it works.
func (h *hosts) eventually(host, command string, limit time.Duration) string {
	h.t.Helper()
	begun := time.Now()
	for {
		out, err := h.text(h.t.Context(), host, command)
		if err == nil {
			return out
		}
		if time.Since(begun) > limit {
			h.t.Fatalf("%s: %s: not after %s: %v\n%s", host, command, limit, err, out)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// image is a root file system with busybox and a page that says who asks, as a tar archive.
func image(t *testing.T) []byte {
	t.Helper()
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		t.Fatal("no busybox: install busybox-static")
	}
	program, err := os.ReadFile(busybox)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	file := func(name string, mode int64, data []byte) {
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: mode, Size: int64(len(data))}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(data); err != nil {
			t.Fatal(err)
		}
	}
	file("bin/busybox", 0o755, program)
	for _, applet := range []string{"sh", "httpd", "nc", "printf", "tail", "ping", "sleep", "ip", "cat", "dd", "head", "wc"} {
		if err := w.WriteHeader(&tar.Header{Name: "bin/" + applet, Typeflag: tar.TypeSymlink, Linkname: "busybox"}); err != nil {
			t.Fatal(err)
		}
	}
	file("www/cgi-bin/who", 0o755, []byte(who))
	file("www/bulk", 0o644, bytes.Repeat([]byte("weft"), 1<<20))
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// who is a CGI program that answers with the client's address.
const who = "#!/bin/sh\necho Content-Type: text/plain\necho\na=${REMOTE_ADDR#[}; a=${a%]}; echo ${a#::ffff:}\n"

// removeCgroups removes what dockerd left of its containers' control groups, which are the machine's.
func removeCgroups(t *testing.T, name string) {
	t.Helper()
	found, err := filepath.Glob("/sys/fs/cgroup/*/" + name)
	if err != nil {
		t.Fatal(err)
	}
	for _, top := range append(found, "/sys/fs/cgroup/"+name) {
		var dirs []string
		err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				dirs = append(dirs, path)
			}
			return nil //nolint:nilerr // one that is gone needs no removal
		})
		if err != nil {
			t.Error(err)
		}
		slices.Reverse(dirs)
		for _, d := range dirs {
			if err := os.Remove(d); err != nil && !errors.Is(err, fs.ErrNotExist) {
				t.Logf("%v", err)
			}
		}
	}
}
