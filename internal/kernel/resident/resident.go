// Package resident gives back memory that a process needed only to start.
//
// Floor 3, edges.
package resident

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// mapping is one part of the address space.
type mapping struct {
	start, end uintptr
	flags      string // "r-xp"
	file       string // path, "" for none
	own        int    // KiB that are no longer the file's
}

// DropProgram takes the pages of the program's own file that were mapped so far out of the process (madvise(2), MADV_DONTNEED): those it
// goes on to use come back from the page cache with the next access, at about a microsecond for 16 of them. What stays away is what only the
// start needed. It returns how many bytes of addresses it did so for. Parts that may be written, or were, stay as they are.
func DropProgram() (int, error) {
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return 0, fmt.Errorf("find the program's file: %w", err)
	}
	text, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		return 0, fmt.Errorf("read the address space: %w", err)
	}
	n := 0
	for _, m := range parse(bytes.NewReader(text)) {
		if m.file != exe || m.own > 0 || m.flags != "r-xp" && m.flags != "r--p" {
			continue
		}
		if _, _, errno := unix.Syscall(unix.SYS_MADVISE, m.start, m.end-m.start, unix.MADV_DONTNEED); errno != 0 {
			return n, fmt.Errorf("give back %s at %#x: %w", m.file, m.start, errno)
		}
		n += int(m.end - m.start)
	}
	return n, nil
}

// parse reads proc_pid_smaps(5).
func parse(r io.Reader) []mapping {
	var out []mapping
	for s := bufio.NewScanner(r); s.Scan(); {
		words := strings.Fields(s.Text())
		if len(words) >= 5 && !strings.HasSuffix(words[0], ":") {
			if m, ok := parseHead(words); ok {
				out = append(out, m)
			}
			continue
		}
		if len(words) >= 2 && words[0] == "Anonymous:" && len(out) > 0 {
			n, err := strconv.Atoi(words[1])
			if err != nil {
				n = 1 // unknown: left alone
			}
			out[len(out)-1].own = n
		}
	}
	return out
}

func parseHead(words []string) (m mapping, ok bool) {
	from, to, found := strings.Cut(words[0], "-")
	start, err1 := strconv.ParseUint(from, 16, 64)
	end, err2 := strconv.ParseUint(to, 16, 64)
	if !found || err1 != nil || err2 != nil || end < start {
		return m, false
	}
	return mapping{start: uintptr(start), end: uintptr(end), flags: words[1], file: strings.Join(words[5:], " ")}, true
}
