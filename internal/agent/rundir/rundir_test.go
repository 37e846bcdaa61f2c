package rundir

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestLock: one agent for a run directory, and the next one after it.
func TestLock(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "agent.lock")
	unlock, err := Lock(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Lock(path); err == nil || !strings.Contains(err.Error(), "another agent runs with --run-dir="+dir+": stop it first") {
		t.Errorf("a second one: %v", err)
	}
	unlock()
	again, err := Lock(path)
	if err != nil {
		t.Fatalf("after the first one: %v", err)
	}
	again()
	if _, err := Lock(filepath.Join(dir, "nowhere", "agent.lock")); err == nil || !strings.Contains(err.Error(), "lock the run directory") {
		t.Errorf("no directory: %v", err)
	}
}

// TestWriteFile: the file has the new text and mode, its directory is made, and nothing is left behind, also where it can't be written.
func TestWriteFile(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	path := filepath.Join(dir, "subnet.env")
	for _, text := range []string{"long enough to be cut", "short"} {
		if err := WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(path)
		st, statErr := os.Stat(path)
		if err != nil || statErr != nil || string(got) != text || st.Mode().Perm() != 0o644 {
			t.Errorf("%q %v %v %v, want %q", got, st.Mode(), err, statErr, text)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "taken"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := WriteFile(filepath.Join(dir, "taken"), nil, 0o644); err == nil {
		t.Error("a directory was replaced")
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 2 {
		t.Errorf("left behind: %v %v", left, err)
	}
}

// TestAsk: the agent's answer, its refusal with the reason, and what is said when none runs or it says nothing.
func TestAsk(t *testing.T) {
	dir := t.TempDir()
	if _, err := Ask(t.Context(), dir, "/status"); err == nil || !strings.Contains(err.Error(), SocketName) || !strings.HasSuffix(err.Error(), "does it run on this host?") {
		t.Errorf("no agent: %v", err)
	}
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "unix", filepath.Join(dir, SocketName))
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/status", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "fine") })
	mux.HandleFunc("/diff", func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "not yet", http.StatusServiceUnavailable) })
	mux.HandleFunc("/silent", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	s := &http.Server{Handler: mux, ReadHeaderTimeout: time.Minute}
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	t.Cleanup(func() {
		if err := s.Shutdown(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
		<-served
	})
	if body, err := Ask(t.Context(), dir, "/status"); err != nil || string(body) != "fine" {
		t.Errorf("%q %v", body, err)
	}
	if _, err := Ask(t.Context(), dir, "/diff"); err == nil || !strings.Contains(err.Error(), "503") || !strings.Contains(err.Error(), "not yet") {
		t.Errorf("refused: %v", err)
	}
	if _, err := AskFor(t.Context(), dir, "/silent", 50*time.Millisecond); err == nil {
		t.Error("an agent that says nothing is waited for")
	}
}
