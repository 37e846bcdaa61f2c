package podinit

import (
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"weft/internal/runtime"
)

func TestOnlyAsPID1(t *testing.T) {
	c := Command()
	c.SetArgs([]string{t.TempDir()})
	c.SilenceErrors, c.SilenceUsage = true, true
	if err := c.Execute(); err == nil || !strings.Contains(err.Error(), "the agent starts it") {
		t.Errorf("pod-init in the host's namespaces: %v", err)
	}
}

const someStat = "12 (a) b (c) S 1 12 12 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4711 2 3 4"

func TestStartTicks(t *testing.T) {
	if ticks, err := startTicks(someStat); ticks != 4711 || err != nil {
		t.Errorf("%d, %v, want 4711", ticks, err)
	}
	if _, err := startTicks(strings.Replace(someStat, " S ", " Z ", 1)); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("zombie: %v", err)
	}
	for _, bad := range []string{"", "12", "12 (x)", "12 (x) S 1", strings.Replace(someStat, "4711", "x", 1)} {
		if ticks, err := startTicks(bad); err == nil {
			t.Errorf("%q: %d", bad, ticks)
		}
	}
}

func FuzzStartTicks(f *testing.F) {
	f.Add(someStat)
	f.Add("1 ()")
	f.Fuzz(func(t *testing.T, s string) {
		if ticks, err := startTicks(s); err != nil && ticks != 0 {
			t.Errorf("%d with error %v", ticks, err)
		}
	})
}

func TestIdentity(t *testing.T) {
	id, err := ownIdentity()
	if err != nil || id.PID != os.Getpid() || !id.Alive() {
		t.Fatalf("%+v, %v", id, err)
	}
	for name, other := range map[string]Identity{
		"nobody":       {},
		"another time": {PID: id.PID, StartTicks: id.StartTicks + 1, BootID: id.BootID},
		"another boot": {PID: id.PID, StartTicks: id.StartTicks, BootID: "x"},
	} {
		if other.Alive() {
			t.Errorf("%s is alive", name)
		}
		if f, err := other.Open(); !errors.Is(err, os.ErrProcessDone) {
			t.Errorf("%s was opened: %v, %v", name, f, err)
		}
	}
}

func TestLogRotates(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a", "0.log")
	l, err := openLog(path)
	if err != nil {
		t.Fatal(err)
	}
	const lines = 1500
	text := strings.Repeat("x", maxLine-2) + "\n"
	if err := l.copyFrom("stdout", strings.NewReader(strings.Repeat(text, lines))); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	var total int64
	for _, p := range []string{path, path + ".1"} {
		st, err := os.Stat(p)
		if err != nil {
			t.Fatal(err)
		}
		if st.Size() > maxLog {
			t.Errorf("%s has %d bytes", p, st.Size())
		}
		total += st.Size()
	}
	if total < maxLog {
		t.Errorf("only %d bytes are kept", total)
	}
	if l, err = openLog(path); err != nil || l.size == 0 {
		t.Errorf("opened again: size %d, %v", l.size, err)
	}
	_ = l.Close()
}

func TestEtc(t *testing.T) {
	got := hosts("web-1", []netip.Addr{netip.MustParseAddr("172.16.28.5"), netip.MustParseAddr("fd00::5")})
	if !strings.HasSuffix(got, "\n172.16.28.5\tweb-1\nfd00::5\tweb-1\n") || !strings.Contains(got, "\n127.0.0.1\tlocalhost\n") {
		t.Errorf("hosts %q", got)
	}
	sb := &runtime.Sandbox{Nameservers: []string{"10.254.0.10", "fd00::10"}}
	if got := resolvConf(sb); got != "nameserver 10.254.0.10\nnameserver fd00::10\n" {
		t.Errorf("resolv.conf %q", got)
	}
	sb.Searches = []string{"a.b", "b"}
	if got := resolvConf(sb); !strings.HasSuffix(got, "\nsearch a.b b\noptions ndots:5\n") {
		t.Errorf("resolv.conf %q", got)
	}
}

func TestLookPath(t *testing.T) {
	dir := t.TempDir()
	for name, mode := range map[string]os.FileMode{"tool": 0o755, "text": 0o644} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, mode); err != nil {
			t.Fatal(err)
		}
	}
	env := []string{"PATH=/nowhere", "PATH=/nowhere:" + dir} // the later counts
	for _, tt := range []struct {
		name, want string
		err        error
	}{
		{"tool", dir + "/tool", nil},
		{dir + "/tool", dir + "/tool", nil},
		{"./tool", dir + "/tool", nil},
		{"text", "", exec.ErrNotFound},
		{"./text", "", os.ErrPermission},
		{"./none", "", exec.ErrNotFound},
		{"none", "", exec.ErrNotFound},
		{"", "", exec.ErrNotFound},
	} {
		got, err := lookPath(tt.name, dir, env)
		if !errors.Is(err, tt.err) || tt.err == nil && got != tt.want {
			t.Errorf("%q: %q, %v", tt.name, got, err)
		}
	}
}

func TestErrorsCrossTheSocket(t *testing.T) {
	for _, want := range []error{runtime.ErrNotFound, exec.ErrNotFound} {
		r := failure(errors.Join(errors.New("while working"), want))
		if got := r.Err(); !errors.Is(got, want) || !strings.Contains(got.Error(), "while working") {
			t.Errorf("%v became %v", want, got)
		}
	}
	if r := (&Reply{}); r.Err() != nil {
		t.Error("an error out of nothing")
	}
}
