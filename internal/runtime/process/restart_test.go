package process_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"weft/internal/kernel/netns"
	"weft/internal/runtime"
	"weft/internal/runtime/process/podinit"
)

// TestAgentKilled kills the agent that made a pod and looks what the next one finds.
func TestAgentKilled(t *testing.T) {
	g := newRig(t)
	agent := exec.Command("/proc/self/exe", "agent", g.run, g.state)
	agent.Stderr = os.Stderr
	end, inherited, err := os.Pipe() // as a shell's pipeline: its end must come although the pod lives on
	if err != nil {
		t.Fatal(err)
	}
	defer end.Close()
	agent.ExtraFiles = []*os.File{nil, nil, nil, inherited}
	out, err := agent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	agent.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := agent.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadBytes('\n')
	if err != nil {
		t.Fatal(err)
	}
	var before runtime.ContainerStatus
	if err := json.Unmarshal(line, &before); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(-agent.Process.Pid, syscall.SIGKILL); err != nil { // its whole group: the pod has its own session
		t.Fatal(err)
	}
	_ = agent.Wait()
	_ = inherited.Close()
	_ = end.SetReadDeadline(time.Now().Add(30 * time.Second))
	if _, err := end.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("the pod holds what its agent had open: %v", err)
	}
	size := fileSize(before.LogPath)
	eventually(t, "log goes on without an agent", func() bool { return fileSize(before.LogPath) > size+100 })

	_ = g.Close()
	g.open()
	after := g.container("u1", "ticker")
	if after.State != runtime.Running || after.ID != before.ID || after.PID != before.PID {
		t.Errorf("after: %+v\nbefore: %+v", after, before)
	}
	if !strings.Contains(read(t, before.LogPath), "stdout F tick 1\n") {
		t.Error("log was begun anew")
	}
	if got := g.sh("u1", "ticker", "hostname"); got != "pod-u1\n" {
		t.Errorf("exec: %q", got)
	}
	if err := g.StopContainer(t.Context(), "u1", "ticker", time.Second); err != nil {
		t.Fatal(err)
	}
	if c := g.container("u1", "ticker"); c.ExitCode != 143 {
		t.Errorf("%+v, want exit code 143", c)
	}
}

func fileSize(path string) int64 {
	st, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return st.Size()
}

// TestExitWhileAway lets a container end while no agent runs.
func TestExitWhileAway(t *testing.T) {
	g := newRig(t)
	g.create("u1")
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	g.start("u1", shell("main", "read x < "+fifo+"; echo last words; exit 42"))
	_ = g.Close()
	if err := os.WriteFile(fifo, []byte("go\n"), 0); err != nil {
		t.Fatal(err)
	}
	eventually(t, "exit is recorded", func() bool {
		return strings.Contains(read(t, filepath.Join(g.run, "pods/u1/containers/main.json")), `"exited"`)
	})
	g.open()
	c := g.container("u1", "main")
	if c.State != runtime.Exited || c.ExitCode != 42 || !strings.Contains(read(t, c.LogPath), "last words") {
		t.Errorf("%+v", c)
	}
}

// TestInitKilled loses the pod itself: it is told as it is, and can be made again.
func TestInitKilled(t *testing.T) {
	g := newRig(t)
	s := g.create("u1")
	g.start("u1", shell("main", "exec sleep 1000"))
	for len(g.Changed()) > 0 {
		<-g.Changed()
	}
	if err := syscall.Kill(s.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	select {
	case <-g.Changed():
	case <-time.After(30 * time.Second):
		t.Fatal("nobody was woken")
	}
	eventually(t, "init is seen dead", func() bool { return g.list()[0].PID == 0 })
	c := g.container("u1", "main")
	if c.State != runtime.Exited || c.ExitCode != 137 || c.FinishedAt.IsZero() {
		t.Errorf("%+v, want killed", c)
	}
	if again := g.container("u1", "main"); !again.FinishedAt.Equal(c.FinishedAt) {
		t.Error("the time of the end changes")
	}
	if now := g.create("u1"); now.PID == 0 || now.PID == s.PID || len(now.Containers) != 1 {
		t.Errorf("made again: %+v", now)
	}
	if c := g.start("u1", shell("main", "exec sleep 1000")); c.State != runtime.Running {
		t.Errorf("%+v", c)
	}
}

// TestPIDReused gives the init's PID to a stranger, who must neither count as the pod nor be killed as it.
func TestPIDReused(t *testing.T) {
	g := newRig(t)
	s := g.create("u1")
	if err := syscall.Kill(s.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "init is seen dead", func() bool { return g.list()[0].PID == 0 })
	file := filepath.Join(g.run, "pods/u1", podinit.IdentityFile)
	var id podinit.Identity
	if err := podinit.ReadJSON(file, &id); err != nil {
		t.Fatal(err)
	}
	<-time.After(20 * time.Millisecond) // two clock ticks: a PID is never reused as fast as this test is
	stranger := exec.Command("sleep", "1000")
	if err := stranger.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = stranger.Process.Kill(); _ = stranger.Wait() }()
	id.PID = stranger.Process.Pid
	if err := podinit.WriteJSON(file, id); err != nil {
		t.Fatal(err)
	}
	if got := g.list()[0]; got.PID != 0 {
		t.Errorf("a stranger is the pod: %+v", got)
	}
	if err := g.RemoveSandbox(t.Context(), "u1"); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(id.PID, 0); err != nil {
		t.Errorf("the stranger was killed: %v", err)
	}
}

// TestPrompt measures the wake-up: no timer is in the way.
func TestPrompt(t *testing.T) {
	g := newRig(t)
	g.create("u1")
	soonest := time.Hour
	for i := range 5 { // the machine may stand still in any of them
		name := fmt.Sprint("main", i)
		g.start("u1", shell(name, "exit 0"))
		c := g.waitExit("u1", name)
		soonest = min(soonest, time.Since(c.FinishedAt))
		if soonest < 100*time.Millisecond {
			break
		}
	}
	if t.Logf("seen %v after the exit", soonest); soonest > time.Second {
		t.Error("that is late")
	}
}

// TestNetwork gives the pod nothing but its own loopback, and reaches its listener only from inside.
func TestNetwork(t *testing.T) {
	g := newRig(t)
	s := g.create("u1")
	g.start("u1", runtime.Container{Name: "web", Image: "nginx"})
	dial := func() error {
		c, err := net.Dial("tcp", "127.0.0.1:80")
		if err != nil {
			return err
		}
		return c.Close()
	}
	eventually(t, "listener inside", func() bool { return netns.Do(s.Netns, dial) == nil })
	if dial() == nil {
		t.Error("the pod's port is open outside")
	}
}

// TestLongPath has the pod's socket where no socket's address fits.
func TestLongPath(t *testing.T) {
	g := newRig(t)
	_ = g.Close()
	g.run = filepath.Join(g.run, strings.Repeat("d", 100), strings.Repeat("e", 100))
	g.open()
	g.create("u1")
	g.start("u1", shell("main", "exec sleep 1000"))
	g.sh("u1", "main", "true")
}
