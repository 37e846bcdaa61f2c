package podinit

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// marker is the environment variable by which a container's processes are known, whatever session or parent they have now.
const marker = "WEFT_CONTAINER="

// killMarked kills what a container left behind. While it looks, processes may fork, end, or be in execve(2), where they show no
// environment, so it looks until a round finds nothing of the kind; at most a second or so.
func killMarked(id string) {
	const rounds, pause = 1000, time.Millisecond
	timer := time.NewTimer(0)
	defer timer.Stop()
	l := leftovers{line: []byte(marker + id), ended: map[int]bool{}}
	for range rounds {
		<-timer.C
		if !l.round() {
			return
		}
		timer.Reset(pause)
	}
}

// leftovers looks for processes with one line in their environment.
type leftovers struct {
	line  []byte
	ended map[int]bool // zombies: what they forked before they ended may not have been in that round's list
}

// round kills those there are and says whether to look again. The oldest go first: a shell whose program is killed before it would run
// the next one.
func (l *leftovers) round() (again bool) {
	dirs, _ := filepath.Glob("/proc/[0-9]*") // the pod's own /proc; the pattern is good
	var pids []int
	for _, d := range dirs {
		if pid, err := strconv.Atoi(filepath.Base(d)); err == nil && pid != 1 {
			pids = append(pids, pid)
		}
	}
	slices.Sort(pids)
	for _, pid := range pids {
		again = l.look(pid) || again
	}
	return again
}

// look kills the process if it has the line, and says whether there may be more to find.
func (l *leftovers) look(pid int) (again bool) {
	dir := filepath.Join("/proc", strconv.Itoa(pid))
	env, err := os.ReadFile(dir + "/environ")
	switch {
	case err != nil:
		return errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH) // it has just ended
	case len(env) > 0:
		return hasLine(env, l.line) && unix.Kill(pid, unix.SIGKILL) == nil
	}
	stat, err := os.ReadFile(dir + "/stat")
	if err != nil {
		return true
	}
	fields, err := statFields(string(stat))
	if errors.Is(err, os.ErrProcessDone) {
		first := !l.ended[pid]
		l.ended[pid] = true
		return first
	}
	const envStart, envEnd = 50 - 3, 51 - 3
	if err != nil || len(fields) <= envEnd {
		return false
	}
	// Both are 0 in execve, and differ when it is over since environ was read. A program with an empty environment has both the same.
	return fields[envStart] == "0" || fields[envStart] != fields[envEnd]
}

func hasLine(env, want []byte) bool {
	for line := range bytes.SplitSeq(env, []byte{0}) {
		if bytes.Equal(line, want) {
			return true
		}
	}
	return false
}
