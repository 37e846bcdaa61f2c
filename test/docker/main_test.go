package docker

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"weft/internal/lab"
	"weft/internal/lab/topology"
	"weft/test/labtest"
)

func TestMain(m *testing.M) { os.Exit(labtest.Main(m, nil)) }

// hosts is a lab of plain hosts; what runs on them the test starts itself.
type hosts struct{ *labtest.Cluster }

func up(t *testing.T, n int) *hosts {
	t.Helper()
	c := labtest.Up(t, "docker", topology.HostsOnly(n), lab.Options{HostsOnly: true})
	c.Nodes, c.Show = c.Topology().Names(), "tail -n 25 /var/log/*.log; ip route; iptables-save"
	return &hosts{c}
}

// text runs a shell's command line on a host and returns all it prints.
func (h *hosts) text(host, command string) (string, error) { return h.Sh(host, "exec 2>&1\n"+command) }

// background starts a program on a host; it ends with the lab.
func (h *hosts) background(host, name, command string) {
	h.T.Helper()
	h.Must(host, fmt.Sprintf("{ %s; } >>/var/log/%s.log 2>&1 </dev/null &", command, name))
}

// eventually repeats a command on a host until it works.
func (h *hosts) eventually(host, command string, limit time.Duration) (out string) {
	h.T.Helper()
	labtest.Eventually(h.T, host+": "+command, limit, func() (err error) {
		if out, err = h.text(host, command); err != nil {
			err = fmt.Errorf("%w\n%s", err, out)
		}
		return err
	})
	return out
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
