package lab

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"weft/internal/lab/topology"
)

// info is lab.json in the state directory.
type info struct {
	Name     string            `json:"name"`
	Created  time.Time         `json:"created"`
	Rootless bool              `json:"rootless"` // the lab has a user namespace
	Bin      string            `json:"bin"`      // directory of the binaries; "" for a lab without
	Topology topology.Topology `json:"topology"`
}

// Errors of Up and Open.
var (
	ErrUp      = errors.New("already up")
	ErrDown    = errors.New("not up")
	ErrCrashed = errors.New("crashed")
)

var labName = regexp.MustCompile(`^[a-zA-Z0-9][-_.a-zA-Z0-9]{0,31}$`)

// DirVariable names the environment variable that overrides where labs keep their state.
const DirVariable = "WEFT_LAB_DIR"

// baseDir is the directory of all labs of this user. It does not make it.
func baseDir() string {
	uid := os.Geteuid()
	if d := os.Getenv(DirVariable); d != "" {
		return d
	}
	if uid == 0 {
		return "/run/weft-lab"
	}
	if d := os.Getenv("XDG_RUNTIME_DIR"); d != "" && owned(d) == nil {
		return filepath.Join(d, "weft-lab")
	}
	return fmt.Sprintf("/tmp/weft-lab-%d", uid)
}

// owned refuses a directory that others may write or that is not ours: the lab runs what it finds there.
func owned(dir string) error {
	fi, err := os.Lstat(dir)
	if err != nil {
		return fmt.Errorf("look at lab directory: %w", err)
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok || !fi.IsDir() || int(st.Uid) != os.Geteuid() || fi.Mode().Perm()&0o022 != 0 {
		return fmt.Errorf("lab directory %s: not a directory that only uid %d can write: set %s to one", dir, os.Geteuid(), DirVariable)
	}
	return nil
}

func stateDir(name string) (string, error) {
	if !labName.MatchString(name) {
		return "", fmt.Errorf("lab name %q: want letters, digits, dashes, at most 32", name)
	}
	dir, err := filepath.Abs(filepath.Join(baseDir(), name))
	if err != nil {
		return "", fmt.Errorf("find lab directory: %w", err)
	}
	return dir, nil
}

// lock opens a state directory and locks it, without waiting: the lock is held as long as the lab lives. ErrUp when it is held.
func lock(dir string) (*os.File, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("open lab directory: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, ErrUp
		}
		return nil, fmt.Errorf("lock lab directory: %w", err)
	}
	// A down may have removed the directory between open and lock.
	here, err := f.Stat()
	if err == nil {
		var there fs.FileInfo
		if there, err = os.Lstat(dir); err == nil && !os.SameFile(here, there) {
			err = fs.ErrNotExist
		}
	}
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("open lab directory: %w", err)
	}
	return f, nil
}

// claimTries bounds how often claim loses against a down that removes the directory.
const claimTries = 20

// claim makes the state directory of a new lab, or takes over the one of a lab that crashed, and returns it locked and empty.
func claim(dir string) (*os.File, error) {
	var err error
	for range claimTries {
		var f *os.File
		if f, err = tryClaim(dir); err == nil {
			if err := empty(dir); err != nil {
				_ = f.Close()
				return nil, err
			}
			return f, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			break
		}
	}
	return nil, err
}

func tryClaim(dir string) (*os.File, error) {
	if err := os.MkdirAll(filepath.Dir(dir), 0o700); err != nil {
		return nil, fmt.Errorf("make lab directory: %w", err)
	}
	if err := owned(filepath.Dir(dir)); err != nil {
		return nil, err
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("make lab directory: %w", err)
	}
	return lock(dir)
}

func empty(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("list lab directory: %w", err)
	}
	for _, e := range entries {
		if err := removeTree(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

// removeState removes a state directory, and the directory of all labs with the last one.
func removeState(dir string) error {
	if err := removeTree(dir); err != nil {
		return err
	}
	_ = os.Remove(filepath.Dir(dir)) // other labs are in it
	return nil
}

// removeTree removes a directory in which programs may have made directories that even their owner cannot write.
func removeTree(dir string) error {
	if os.RemoveAll(dir) == nil {
		return nil
	}
	_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, _ error) error {
		if d != nil && d.IsDir() {
			_ = os.Chmod(path, 0o700) //nolint:gosec // a directory needs x
		}
		return nil
	})
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("remove lab directory: %w", err)
	}
	return nil
}

func writeJSON(dir string, i info) error {
	data, err := json.MarshalIndent(i, "", "  ")
	if err != nil {
		return fmt.Errorf("encode lab.json: %w", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "lab.json"), data, 0o600); err != nil {
		return fmt.Errorf("write lab.json: %w", err)
	}
	return nil
}

func readJSON(dir string, i *info) error {
	data, err := os.ReadFile(filepath.Join(dir, "lab.json"))
	if err != nil {
		return fmt.Errorf("read lab.json: %w", err)
	}
	if err := json.Unmarshal(data, i); err != nil {
		return fmt.Errorf("decode lab.json: %w", err)
	}
	return nil
}

func readPID(dir string) (int, error) {
	data, err := os.ReadFile(filepath.Join(dir, "pid"))
	if err != nil {
		return 0, fmt.Errorf("read supervisor's pid: %w", err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil || pid <= 1 {
		return 0, fmt.Errorf("read supervisor's pid: %q is none", data)
	}
	return pid, nil
}
