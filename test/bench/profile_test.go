package bench

import (
	"context"
	"os"
	"path/filepath"
	"strconv"

	"weft/internal/agent/rundir"
)

// profileDir is where profiles of the agent are written to, "" for none.
var profileDir = os.Getenv("WEFT_PROFILE")

// heap writes the agent's heap profile, and what the kernel says of its memory, to files with the name.
func (d *process) heap(name string) {
	d.TB.Helper()
	if profileDir == "" || d.name != weft {
		return
	}
	for file, path := range map[string]string{"status": "status", "smaps": "smaps"} {
		text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(d.PID()), path))
		d.save(name+"."+file, text, err)
	}
	body, err := rundir.Ask(context.Background(), filepath.Join(d.Dir, "run"), "/debug/heap")
	d.save(name+".heap", body, err)
}

// cpu begins a profile of the agent's processor time and returns what waits for its end.
func (d *process) cpu(name string) (wait func()) {
	if profileDir == "" || d.name != weft {
		return func() {}
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		body, err := rundir.Ask(context.Background(), filepath.Join(d.Dir, "run"), "/debug/cpu?seconds=3")
		d.save(name+".cpu", body, err)
	}()
	return func() { <-done }
}

func (d *process) save(name string, text []byte, err error) {
	if err == nil {
		err = os.WriteFile(filepath.Join(profileDir, name), text, 0o600)
	}
	if err != nil {
		d.TB.Errorf("profile %s: %v", name, err)
	}
}
