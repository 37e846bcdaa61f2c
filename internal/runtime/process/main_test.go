package process_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"weft/internal/kernel/netns"
	"weft/internal/runtime"
	"weft/internal/runtime/process"
)

// TestMain is also the programs that the runtime starts: pod-init, an image, and an agent that tests can kill.
func TestMain(m *testing.M) {
	if len(os.Args) < 2 {
		os.Exit(netns.Main(m))
	}
	var err error
	switch os.Args[1] {
	case "pod-init":
		c := process.InitCommand()
		c.SetArgs(os.Args[2:])
		err = c.Execute()
	case "image":
		err = fakeImage(os.Args[2])
	case "agent":
		err = fakeAgent(os.Args[2], os.Args[3])
	default:
		os.Exit(netns.Main(m))
	}
	if err != nil {
		os.Exit(1)
	}
}

// fakeImage stands for `weft image NAME`, whose real programs are on a higher floor.
func fakeImage(name string) error {
	fmt.Println("image", name)
	if name == "nginx" {
		l, err := net.Listen("tcp", ":80")
		if err != nil {
			return err
		}
		defer l.Close()
	}
	return forever()
}

// forever waits in the kernel: without cgo, Go ends a program whose goroutines all wait for each other.
func forever() error {
	for {
		_ = syscall.Pause() // always interrupted
	}
}

// fakeAgent creates a pod, as an agent that is then killed.
func fakeAgent(run, state string) error {
	r, err := process.New(process.Config{RunDir: run, StateDir: state})
	if err != nil {
		return err
	}
	ctx := context.Background()
	if _, err := r.CreateSandbox(ctx, sandbox("u1")); err != nil {
		return err
	}
	script := "i=0; while :; do i=$((i+1)); echo tick $i; sleep 0.05; done"
	st, err := r.StartContainer(ctx, "u1", shell("ticker", script))
	if err != nil {
		return err
	}
	if err := json.NewEncoder(os.Stdout).Encode(st); err != nil {
		return err
	}
	return forever()
}

func sandbox(uid string) runtime.Sandbox {
	return runtime.Sandbox{
		UID: uid, Namespace: "default", Name: "pod-" + uid, Hostname: "pod-" + uid,
		Nameservers: []string{"10.254.0.10"}, Searches: []string{"default.svc.cluster.local", "svc.cluster.local"},
	}
}

func shell(name, script string) runtime.Container {
	return runtime.Container{Name: name, Image: "debian:12", Command: []string{"sh", "-c", script}}
}

// rig is a runtime in directories of its own. Everything in it is removed at the end of the test.
type rig struct {
	*process.Runtime
	t          *testing.T
	run, state string
}

func newRig(t *testing.T) *rig {
	t.Helper()
	netns.Need(t)
	run, err := os.MkdirTemp("/run", "weft-") // a private tmpfs, see netns.Main
	if err != nil {
		t.Fatal(err)
	}
	g := &rig{t: t, run: run, state: filepath.Join(t.TempDir(), "state")}
	g.open()
	t.Cleanup(func() {
		for _, s := range g.list() {
			if err := g.RemoveSandbox(context.Background(), s.UID); err != nil {
				t.Error(err)
			}
		}
		_ = g.Close()
		_ = os.RemoveAll(run)
	})
	return g
}

func (g *rig) open() {
	g.t.Helper()
	r, err := process.New(process.Config{RunDir: g.run, StateDir: g.state})
	if err != nil {
		g.t.Fatal(err)
	}
	g.Runtime = r
}

func (g *rig) list() []runtime.SandboxStatus {
	g.t.Helper()
	all, err := g.List(context.Background())
	if err != nil {
		g.t.Fatal(err)
	}
	return all
}

func (g *rig) create(uid string) runtime.SandboxStatus {
	g.t.Helper()
	s, err := g.CreateSandbox(g.t.Context(), sandbox(uid))
	if err != nil {
		g.t.Fatal(err)
	}
	return s
}

func (g *rig) start(uid string, c runtime.Container) runtime.ContainerStatus {
	g.t.Helper()
	s, err := g.StartContainer(g.t.Context(), uid, c)
	if err != nil {
		g.t.Fatal(err)
	}
	return s
}

// sh runs a script in a container and returns what it printed.
func (g *rig) sh(uid, container, script string) string {
	g.t.Helper()
	var out, errOut strings.Builder
	code, err := g.Exec(g.t.Context(), uid, container, []string{"sh", "-c", script}, runtime.Stream{Stdout: &out, Stderr: &errOut})
	if err != nil || code != 0 {
		g.t.Fatalf("%s: exit code %d, %v: %s", script, code, err, errOut.String())
	}
	return out.String()
}

// container reads one container's status.
func (g *rig) container(uid, name string) runtime.ContainerStatus {
	g.t.Helper()
	for _, s := range g.list() {
		for _, c := range s.Containers {
			if s.UID == uid && c.Name == name {
				return c
			}
		}
	}
	g.t.Fatalf("no container %s in %s", name, uid)
	return runtime.ContainerStatus{}
}

// waitExit waits by wake-ups, not by time, for the container's end.
func (g *rig) waitExit(uid, name string) runtime.ContainerStatus {
	g.t.Helper()
	deadline := time.After(30 * time.Second)
	for {
		if c := g.container(uid, name); c.State == runtime.Exited {
			return c
		}
		select {
		case <-g.Changed():
		case <-deadline:
			g.t.Fatalf("%s did not exit, or Changed did not say so", name)
		}
	}
}

// eventually waits for a condition that nothing signals.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
		<-tick.C
	}
}
