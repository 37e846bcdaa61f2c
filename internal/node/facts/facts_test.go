package facts

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// root makes a file tree that looks like a host's.
func root(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestRead(t *testing.T) {
	dir := root(t, map[string]string{
		"proc/meminfo":   "MemTotal:       2048 kB\nMemAvailable:   1024 kB\n",
		"etc/os-release": "NAME=x\nPRETTY_NAME=\"Test Linux 1\"\n",
		"etc/machine-id": "abc\n",
	})
	h, err := Read(dir, dir)
	if err != nil {
		t.Fatal(err)
	}
	if h.MemoryBytes != 2<<20 || h.OSImage != "Test Linux 1" || h.MachineID != "abc" || h.CPUs < 1 || h.Kernel == "" || h.DiskBytes <= 0 {
		t.Errorf("host %+v", h)
	}
	if _, err := Read(root(t, map[string]string{"proc/meminfo": "junk"}), dir); err == nil || !strings.Contains(err.Error(), "MemTotal") {
		t.Errorf("unreadable memory size: %v", err)
	}
	if real, err := Read("/", "/"); err != nil || real.MemoryBytes < 1<<20 || real.BootID == "" {
		t.Errorf("this host: %+v, %v", real, err)
	}
}

func TestPressure(t *testing.T) {
	for _, c := range []struct {
		available, loadavg string
		memory, pids       bool
	}{
		{"1048576", "0.0 0.0 0.0 1/100 5", false, false},
		{"1024", "0.0 0.0 0.0 1/100 5", true, false},
		{"1048576", "0.0 0.0 0.0 1/951 5", false, true},
		{"1048576", "junk", false, false},
	} {
		dir := root(t, map[string]string{
			"proc/meminfo":            "MemTotal: 2097152 kB\nMemAvailable:   " + c.available + " kB\n",
			"proc/loadavg":            c.loadavg,
			"proc/sys/kernel/pid_max": "1000\n",
		})
		p, err := ReadPressure(dir, dir)
		if err != nil || p.Memory != c.memory || p.PIDs != c.pids {
			t.Errorf("%+v: %+v, %v", c, p, err)
		}
	}
}
