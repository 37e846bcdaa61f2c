// Package control is how the lab talks to a host: HTTP over a unix socket that the host's init serves. It starts, stops and
// signals programs, reads and writes files, and opens connections as seen from the host.
//
// Floor 4, programs.
package control

import (
	"errors"
	"io/fs"
	"path/filepath"
	"time"
)

// Spec is a program to run.
type Spec struct {
	Argv []string `json:"argv"`          // the first is looked up in the host's PATH
	Env  []string `json:"env,omitempty"` // added to the host's environment, "K=V"
}

// Status is what a program does.
type Status struct {
	Name     string    `json:"name"`
	Argv     []string  `json:"argv"`
	Running  bool      `json:"running"`
	PID      int       `json:"pid,omitempty"` // in the host's PID namespace
	Started  time.Time `json:"started"`
	Ended    time.Time `json:"ended,omitzero"`
	Restarts int       `json:"restarts"`       // starts after the first
	Exit     string    `json:"exit,omitempty"` // of a program that ended: "exit status 1", "signal: killed"
}

// Uptime is how long the program has run, or did run.
func (s Status) Uptime(now time.Time) time.Duration {
	if s.Running {
		return now.Sub(s.Started)
	}
	return s.Ended.Sub(s.Started)
}

// Errors a host answers with.
var (
	ErrNoProgram = errors.New("no such program")
	ErrRunning   = errors.New("already running")
	ErrStopped   = errors.New("not running")
)

// codes maps the errors that a client may want to tell apart to what goes over the wire.
var codes = map[string]error{"no-program": ErrNoProgram, "running": ErrRunning, "stopped": ErrStopped, "not-exist": fs.ErrNotExist}

// Socket is the path of a host's control socket in the lab's state directory.
func Socket(state, host string) string { return filepath.Join(state, host+".sock") }

// remote is an error a host answered with.
type remote struct {
	text string
	kind error
}

func (r *remote) Error() string { return r.text }
func (r *remote) Unwrap() error { return r.kind }

// upgrade is the protocol name with which a connection stops being HTTP.
const upgrade = "weft-dial"
