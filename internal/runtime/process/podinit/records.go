package podinit

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Identity tells one process from any other that ever has the same PID: a PID is reused, a start time in the same boot is not.
type Identity struct {
	PID        int    // in the agent's PID namespace
	StartTicks uint64 // field starttime of proc_pid_stat(5), clock ticks since boot
	BootID     string // random(4): a reboot starts PIDs and ticks over
}

// ownIdentity is the identity of this process as the mounted /proc sees it.
func ownIdentity() (Identity, error) {
	self, err := os.Readlink("/proc/self")
	if err != nil {
		return Identity{}, fmt.Errorf("read own PID: %w", err)
	}
	pid, err := strconv.Atoi(self)
	if err != nil {
		return Identity{}, fmt.Errorf("read own PID: %w", err)
	}
	return identify(pid)
}

// identify reads the identity of the process that has the PID now.
func identify(pid int) (Identity, error) {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return Identity{}, fmt.Errorf("read boot id: %w", err)
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return Identity{}, fmt.Errorf("read process: %w", err)
	}
	ticks, err := startTicks(string(stat))
	if err != nil {
		return Identity{}, err
	}
	return Identity{PID: pid, StartTicks: ticks, BootID: strings.TrimSpace(string(boot))}, nil
}

// statFields splits a line of /proc/PID/stat, from field 3 on; field 2, the program's name in parentheses, may hold anything. A zombie
// counts as gone: os.ErrProcessDone.
func statFields(stat string) ([]string, error) {
	end := strings.LastIndexByte(stat, ')')
	if end < 0 {
		return nil, fmt.Errorf("parse /proc/PID/stat: no program name in %q", stat)
	}
	fields := strings.Fields(stat[end+1:])
	if len(fields) > 0 && (fields[0] == "Z" || fields[0] == "X") {
		return nil, fmt.Errorf("process has ended: %w", os.ErrProcessDone)
	}
	return fields, nil
}

// startTicks takes field 22 out of a line of /proc/PID/stat.
func startTicks(stat string) (uint64, error) {
	fields, err := statFields(stat)
	if err != nil {
		return 0, err
	}
	const start = 22 - 3
	if len(fields) <= start {
		return 0, fmt.Errorf("parse /proc/PID/stat: only %d fields", len(fields)+2)
	}
	ticks, err := strconv.ParseUint(fields[start], 10, 64)
	if err != nil {
		return 0, fmt.Errorf("parse start time: %w", err)
	}
	return ticks, nil
}

// Alive says whether that very process still runs.
func (id Identity) Alive() bool {
	if id.PID <= 0 {
		return false
	}
	now, err := identify(id.PID)
	return err == nil && now == id
}

// Open returns a descriptor of the process (pidfd_open(2)), safe to signal and to wait for, or os.ErrProcessDone.
func (id Identity) Open() (*os.File, error) {
	if id.PID <= 0 {
		return nil, os.ErrProcessDone
	}
	fd, err := unix.PidfdOpen(id.PID, unix.PIDFD_NONBLOCK)
	if err != nil {
		if err == unix.ESRCH {
			return nil, os.ErrProcessDone
		}
		return nil, fmt.Errorf("open process %d: %w", id.PID, err)
	}
	f := os.NewFile(uintptr(fd), "pidfd")
	if !id.Alive() { // looked at after opening, so the descriptor is of the process looked at
		_ = f.Close()
		return nil, os.ErrProcessDone
	}
	return f, nil
}

// WriteJSON replaces the file with v in one step: a reader sees the old or the new, never a part.
func WriteJSON(path string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode %s: %w", filepath.Base(path), err)
	}
	tmp := path + ".new"
	if err := os.WriteFile(tmp, append(b, '\n'), 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}

// ReadJSON reads what WriteJSON wrote.
func ReadJSON(path string, v any) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("decode %s: %w", path, err)
	}
	return nil
}
