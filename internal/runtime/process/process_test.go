package process_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"weft/internal/runtime"
)

func TestInside(t *testing.T) {
	g := newRig(t)
	s := g.create("u1")
	c := g.start("u1", shell("main", "exec sleep 1000"))
	if c.PID == 0 || c.State != runtime.Running || len(c.ID) != 32 {
		t.Errorf("status %+v", c)
	}
	if own, err := os.Readlink("/proc/self/ns/net"); err != nil || own == readlink(t, s.Netns) {
		t.Errorf("pod is in the agent's network namespace (%v)", err)
	}
	for _, ns := range []string{"net", "mnt", "pid", "uts", "ipc"} {
		if a, b := readlink(t, "/proc/"+strconv.Itoa(c.PID)+"/ns/"+ns), readlink(t, "/proc/self/ns/"+ns); a == b {
			t.Errorf("container shares the agent's %s namespace", ns)
		}
		if a, b := readlink(t, "/proc/"+strconv.Itoa(c.PID)+"/ns/"+ns), strings.TrimSpace(g.sh("u1", "main", "readlink /proc/self/ns/"+ns)); a != b {
			t.Errorf("exec is in %s namespace %s, the container in %s", ns, b, a)
		}
	}
	for _, tt := range []struct{ script, want string }{
		{"hostname", `^pod-u1\n$`},
		{"cat /etc/hostname", `^pod-u1\n$`},
		{"cat /etc/hosts", `127.0.0.1\tlocalhost`},
		{"cat /etc/resolv.conf", `nameserver 10.254.0.10\nsearch default.svc.cluster.local svc.cluster.local\n`},
		{"cat /proc/1/comm", `^pod-init\n$`},
		{"cat /proc/net/dev | wc -l", `^3\n$`}, // two lines of heading and lo
		{"cat /sys/class/net/lo/operstate; ls /sys/class/net", `^unknown\nlo\n$`},
		{"echo $HOSTNAME $HOME", `^pod-u1 /root\n$`},
		{"echo > /dev/tcp 2>/dev/null; pwd", `^/\n$`},
	} {
		if got := g.sh("u1", "main", tt.script); !regexp.MustCompile(tt.want).MatchString(got) {
			t.Errorf("%s: %q does not match %q", tt.script, got, tt.want)
		}
	}
	if b, err := os.ReadFile("/etc/hostname"); err == nil && strings.Contains(string(b), "pod-u1") {
		t.Error("the host's /etc/hostname is the pod's")
	}
	again := g.create("u1")
	if again.PID != s.PID || len(again.Containers) != 1 {
		t.Errorf("second create: %+v, want the first sandbox", again)
	}
}

func readlink(t *testing.T, path string) string {
	t.Helper()
	target, err := os.Readlink(path)
	if err != nil {
		t.Fatal(err)
	}
	return target
}

func TestExitCodes(t *testing.T) {
	g := newRig(t)
	g.create("u1")
	for _, tt := range []struct {
		name, script string
		code         int
	}{
		{"good", "exit 0", 0},
		{"bad", "exit 7", 7},
		{"signal", "kill -TERM $$", 143},
		{"orphan", "sleep 1000 & exit 3", 3}, // its child holds the log open
		{"daemon", "setsid sh -c 'setsid sleep 1000 & sleep 1000' & exit 4", 4}, // out of the session and the process group
	} {
		started := g.start("u1", shell(tt.name, tt.script))
		c := g.waitExit("u1", tt.name)
		if c.ExitCode != tt.code || c.PID != 0 || c.ID != started.ID || c.FinishedAt.Before(c.StartedAt) {
			t.Errorf("%s: %+v, want exit code %d", tt.name, c, tt.code)
		}
	}
	g.start("u1", shell("look", "exec sleep 1000"))
	eventually(t, "only the last container sleeps", func() bool {
		return g.sh("u1", "look", "cat /proc/[0-9]*/comm | grep -c sleep || true") == "1\n"
	})
}

func TestLogs(t *testing.T) {
	g := newRig(t)
	g.create("u1")
	long := "head -c 40000 /dev/zero | tr '\\0' x; echo; echo err >&2; printf unfinished"
	g.start("u1", shell("main", long))
	c := g.waitExit("u1", "main")
	b, err := os.ReadFile(c.LogPath)
	if err != nil {
		t.Fatal(err)
	}
	entry := regexp.MustCompile(`^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z) (stdout|stderr) ([FP]) (.*)$`)
	var kinds []string
	text := map[string]string{}
	for line := range strings.Lines(string(b)) {
		m := entry.FindStringSubmatch(strings.TrimSuffix(line, "\n"))
		if m == nil {
			t.Fatalf("not a CRI log line: %.80q", line)
		}
		kinds = append(kinds, m[2]+m[3])
		text[m[2]] += m[4]
	}
	if want := strings.Repeat("x", 40000) + "unfinished"; text["stdout"] != want || text["stderr"] != "err" {
		t.Errorf("%d characters of stdout and %q of stderr", len(text["stdout"]), text["stderr"])
	}
	if got := strings.Count(strings.Join(kinds, " "), "stdoutP"); got != 2 {
		t.Errorf("%v: %d parts, want 2", kinds, got)
	}
	// Attempts have files of their own; the last two stay.
	for attempt := 1; attempt <= 2; attempt++ {
		next := shell("main", "echo again")
		next.Attempt = attempt
		g.start("u1", next)
		g.waitExit("u1", "main")
	}
	logs, err := filepath.Glob(filepath.Join(filepath.Dir(c.LogPath), "*"))
	if err != nil || len(logs) != 2 || filepath.Base(logs[0]) != "1.log" {
		t.Errorf("logs %v, want the last two attempts' (%v)", logs, err)
	}
}

func TestStop(t *testing.T) {
	g := newRig(t)
	g.create("u1")
	ctx := t.Context()
	c := g.start("u1", shell("polite", "trap 'exit 9' TERM; while :; do sleep 0.01; done"))
	eventually(t, "trap is set", func() bool { return strings.Contains(statusOf(c.PID, "SigCgt"), "4") })
	if err := g.StopContainer(ctx, "u1", "polite", 30*time.Second); err != nil {
		t.Fatal(err)
	}
	if c := g.container("u1", "polite"); c.ExitCode != 9 {
		t.Errorf("polite: %+v, want its own exit code", c)
	}
	c = g.start("u1", shell("stubborn", "trap '' TERM; while :; do sleep 0.01; done"))
	eventually(t, "signal is ignored", func() bool { return strings.Contains(statusOf(c.PID, "SigIgn"), "4") })
	began := time.Now()
	if err := g.StopContainer(ctx, "u1", "stubborn", 100*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	if c := g.container("u1", "stubborn"); c.State != runtime.Exited || c.ExitCode != 137 {
		t.Errorf("stubborn: %+v, want killed", c)
	}
	if d := time.Since(began); d > 15*time.Second {
		t.Errorf("stop took %v", d)
	}
	for _, name := range []string{"stubborn", "never-there"} {
		if err := g.StopContainer(ctx, "u1", name, time.Second); err != nil {
			t.Errorf("stop of %s: %v", name, err)
		}
	}
	if err := g.StopContainer(ctx, "no-such-pod", "x", time.Second); err != nil {
		t.Error(err)
	}
}

func TestRemoveLeavesNothing(t *testing.T) {
	g := newRig(t)
	mounts := countLines(t, "/proc/self/mountinfo")
	s := g.create("u1")
	c := g.start("u1", shell("main", "setsid sleep 1000 & exec sleep 1000"))
	ctx := t.Context()
	for range 2 {
		if err := g.RemoveSandbox(ctx, "u1"); err != nil {
			t.Fatal(err)
		}
	}
	for _, pid := range []int{s.PID, c.PID} {
		eventually(t, "process is gone", func() bool {
			_, err := os.Stat("/proc/" + strconv.Itoa(pid))
			return errors.Is(err, os.ErrNotExist)
		})
	}
	if n := countLines(t, "/proc/self/mountinfo"); n != mounts {
		t.Errorf("%d mounts, %d before", n, mounts)
	}
	for _, pattern := range []string{g.run + "/pods/*", g.state + "/pod-logs/*"} {
		if left, _ := filepath.Glob(pattern); len(left) != 0 {
			t.Errorf("left behind: %v", left)
		}
	}
	if len(g.list()) != 0 {
		t.Error("removed sandbox is listed")
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// statusOf is a line of /proc/PID/status.
func statusOf(pid int, key string) string {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for line := range strings.Lines(string(b)) {
		if value, ok := strings.CutPrefix(line, key); ok {
			return value
		}
	}
	return ""
}

func countLines(t *testing.T, path string) int {
	t.Helper()
	return strings.Count(read(t, path), "\n")
}

func TestErrors(t *testing.T) {
	g := newRig(t)
	ctx := t.Context()
	start := func(uid string, c runtime.Container) error {
		_, err := g.StartContainer(ctx, uid, c)
		return err
	}
	if err := start("u1", shell("main", "true")); !errors.Is(err, runtime.ErrNotFound) {
		t.Errorf("start without sandbox: %v", err)
	}
	g.create("u1")
	err := start("u1", runtime.Container{Name: "main", Image: "example.org/redis:7"})
	if !errors.Is(err, runtime.ErrImage) || !strings.Contains(err.Error(), "alpine, busybox, debian, nginx") {
		t.Errorf("unknown image: %v", err)
	}
	c := shell("main", "")
	c.Command = []string{"no-such-program"}
	if err := start("u1", c); !errors.Is(err, exec.ErrNotFound) {
		t.Errorf("unknown program: %v", err)
	}
	c = shell("main", "true")
	c.WorkingDir = "/no/such/dir"
	if err := start("u1", c); err == nil || !strings.Contains(err.Error(), "/no/such/dir") {
		t.Errorf("unknown directory: %v", err)
	}
	for _, name := range []string{"", "../up", ".hidden", strings.Repeat("x", 300)} {
		if err := start("u1", shell(name, "true")); err == nil {
			t.Errorf("container name %.20q accepted", name)
		}
		if _, err := g.CreateSandbox(ctx, runtime.Sandbox{UID: name, Namespace: "a", Name: "b"}); err == nil {
			t.Errorf("UID %.20q accepted", name)
		}
		if err := g.RemoveSandbox(ctx, name); err == nil {
			t.Errorf("removal of %.20q accepted", name)
		}
	}
	if got := g.list(); len(got) != 1 || len(got[0].Containers) != 0 {
		t.Errorf("failed starts left something: %+v", got)
	}
	g.start("u1", shell("main", "sleep 1000"))
	c = shell("main", "sleep 1000")
	c.Attempt = 1
	if err := start("u1", c); err == nil {
		t.Error("two attempts run at the same time")
	}
}

func TestHostNetwork(t *testing.T) {
	g := newRig(t)
	sb := sandbox("u1")
	sb.HostNetwork = true
	s, err := g.CreateSandbox(t.Context(), sb)
	if err != nil {
		t.Fatal(err)
	}
	if s.Netns != "" || s.PID == 0 {
		t.Errorf("status %+v", s)
	}
	g.start("u1", shell("main", "sleep 1000"))
	if got := strings.TrimSpace(g.sh("u1", "main", "readlink /proc/self/ns/net")); got != readlink(t, "/proc/self/ns/net") {
		t.Errorf("pod is in %s", got)
	}
}

func TestImages(t *testing.T) {
	g := newRig(t)
	g.create("u1")
	web := g.start("u1", runtime.Container{Name: "web", Image: "docker.io/library/nginx:1.0"})
	eventually(t, "log of the image", func() bool {
		b, _ := os.ReadFile(web.LogPath)
		return strings.Contains(string(b), "stdout F image nginx\n")
	})
	eventually(t, "listener", func() bool { return strings.Contains(g.sh("u1", "web", "netstat -ltn"), ":80 ") })
	g.start("u1", runtime.Container{Name: "idle", Image: "alpine"})
	if got := strings.ReplaceAll(read(t, fmt.Sprintf("/proc/%d/cmdline", web.PID)), "\x00", " "); got != "weft image nginx " {
		t.Errorf("command line %q", got)
	}
	if _, err := os.Stat("/bin/busybox"); err != nil {
		t.Skip("no /bin/busybox on this host: apt-get install busybox-static")
	}
	for _, tool := range []string{"telnet", "nc", "wget", "netstat", "nslookup", "ip"} {
		g.sh("u1", "web", "command -v "+tool)
		if got := g.sh("u1", "idle", "which "+tool); got != g.run+"/applets/"+tool+"\n" {
			t.Errorf("alpine's %s is %q", tool, got)
		}
	}
}

func TestContextEndsCreate(t *testing.T) {
	g := newRig(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := g.CreateSandbox(ctx, sandbox("u1")); !errors.Is(err, context.Canceled) {
		t.Fatalf("create with an ended context: %v", err)
	}
	if got := g.list(); len(got) != 0 {
		t.Errorf("left behind: %+v", got)
	}
	g.create("u1")
}

func TestManyAtOnce(t *testing.T) {
	g := newRig(t)
	const pods = 12
	var wg sync.WaitGroup
	for i := range pods {
		wg.Go(func() {
			uid := fmt.Sprint("u", i%(pods/2)) // every one is asked for twice
			if _, err := g.CreateSandbox(t.Context(), sandbox(uid)); err != nil {
				t.Error(err)
				return
			}
			removed := i%3 == 0 // by both who asked for it
			_, err := g.StartContainer(t.Context(), uid, shell("main", "exec sleep 1000"))
			if err != nil && (!removed || !errors.Is(err, runtime.ErrNotFound)) {
				t.Error(err)
			}
			if removed {
				if err := g.RemoveSandbox(t.Context(), uid); err != nil {
					t.Error(err)
				}
			}
			if _, err := g.List(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := len(g.list()); n != pods/2-2 {
		t.Errorf("%d sandboxes, want all but two", n)
	}
}
