package scale

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"
)

// profileDir, where set, is given profiles of the agents' processor time, and what they log.
var profileDir = os.Getenv("WEFT_PROFILE")

// profile records what the agent spends processor time on in the seconds from now on; the function that it returns waits for the end.
func (d *process) profile(name string, seconds int) (wait func()) {
	d.TB.Helper()
	if profileDir == "" {
		return func() {}
	}
	dir, log, done := filepath.Join(d.Dir, "run"), d.Log, make(chan struct{})
	go func() {
		defer close(done)
		for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
			b, err := exec.Command(programs.weft, "debug", "cpu", "--run-dir", dir, "--seconds", strconv.Itoa(seconds)).Output()
			if err == nil {
				_ = os.WriteFile(filepath.Join(profileDir, name+".cpu"), b, 0o600)
				break
			}
		}
		_ = os.WriteFile(filepath.Join(profileDir, name+".log"), log.Bytes(), 0o600)
	}()
	return func() { <-done }
}

// during is how many seconds of a start with n services are recorded.
func during(n int) int { return 3 + n/5000 }

func profileName(what string, n int) string { return fmt.Sprintf("%s-%d", what, n) }
