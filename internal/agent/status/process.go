package status

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// writeProcess prints what the kernel and the language's runtime know of the agent, under the names that Prometheus' client libraries give to the
// same. What can't be read is left out.
func writeProcess(w io.Writer) {
	metric := func(name, kind, help string, v float64) {
		fmt.Fprintf(w, "# HELP %s %s\n# TYPE %s %s\n%s %s\n", name, help, name, kind, name, strconv.FormatFloat(v, 'f', -1, 64))
	}
	metric("go_goroutines", "gauge", "goroutines of the agent", float64(runtime.NumGoroutine()))
	var used unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &used) == nil {
		metric("process_cpu_seconds_total", "counter", "processor time, of user and system",
			time.Duration(used.Utime.Nano()+used.Stime.Nano()).Seconds())
	}
	if text, err := os.ReadFile("/proc/self/statm"); err == nil {
		for i, name := range []string{"virtual", "resident"} {
			if pages, err := strconv.ParseFloat(field(text, i), 64); err == nil {
				metric("process_"+name+"_memory_bytes", "gauge", name+" memory", pages*float64(os.Getpagesize()))
			}
		}
	}
	if at, ok := started(); ok {
		metric("process_start_time_seconds", "gauge", "when the agent started, in seconds since 1970", at)
	}
	if list, err := os.ReadDir("/proc/self/fd"); err == nil {
		metric("process_open_fds", "gauge", "open file descriptors", float64(len(list)-1)) // one is the list's own
	}
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) == nil {
		metric("process_max_fds", "gauge", "file descriptors that may be open", float64(limit.Cur))
	}
}

// field is a word of a line, "" when there are not so many.
func field(line []byte, i int) string {
	words := strings.Fields(string(line))
	if i >= len(words) {
		return ""
	}
	return words[i]
}

// clockTicks is how many ticks of /proc a second has (USER_HZ, proc(5)): 100 for every program.
const clockTicks = 100

// started is when the process did, in seconds since 1970: field 22 of /proc/self/stat counts from the start of the kernel.
func started() (at float64, ok bool) {
	text, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		return 0, false
	}
	_, rest, _ := bytes.Cut(text, []byte(") ")) // after the name, which is field 2 and may hold anything but this in the end
	ticks, err := strconv.ParseFloat(field(rest, 22-3), 64)
	boot, err2 := os.ReadFile("/proc/stat")
	if err != nil || err2 != nil {
		return 0, false
	}
	for line := range bytes.Lines(boot) {
		if b, found := bytes.CutPrefix(line, []byte("btime ")); found {
			since, err := strconv.ParseFloat(field(b, 0), 64)
			return since + ticks/clockTicks, err == nil
		}
	}
	return 0, false
}
