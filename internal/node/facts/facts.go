// Package facts reads what a host is: kernel, system, size, and whether it is short of something.
//
// Floor 4, programs (part of node).
package facts

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Host is what does not change while the host runs.
type Host struct {
	Hostname    string
	Kernel      string // uname -r
	OSImage     string // PRETTY_NAME of os-release(5)
	OS, Arch    string // as Go names them
	MachineID   string // machine-id(5), "" when the host has none
	BootID      string
	SystemUUID  string // of the firmware, "" when unreadable
	CPUs        int
	MemoryBytes int64
	DiskBytes   int64 // size of the file system that holds the state directory
}

// Pressure says what the host is short of now, as kubelet's defaults see it.
type Pressure struct {
	Memory bool // less than 100 MiB available
	Disk   bool // less than 10 % of the state directory's file system free
	PIDs   bool // more than 90 % of the process IDs taken
}

// Limits of Pressure.
const (
	minMemory      = 100 << 20
	minDiskPercent = 10
	maxPIDPercent  = 90
)

// Read reads the host's facts below root, which is "/" but in tests. dir is a directory whose file system counts as the disk.
func Read(root, dir string) (Host, error) {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return Host{}, fmt.Errorf("read kernel version: %w", err)
	}
	memory, err := memInfo(root, "MemTotal")
	if err != nil {
		return Host{}, err
	}
	size, _, err := disk(dir)
	if err != nil {
		return Host{}, err
	}
	return Host{
		Hostname: unix.ByteSliceToString(name.Nodename[:]), Kernel: unix.ByteSliceToString(name.Release[:]),
		OSImage: osImage(root), OS: runtime.GOOS, Arch: runtime.GOARCH,
		MachineID: word(root, "etc/machine-id"), BootID: word(root, "proc/sys/kernel/random/boot_id"),
		SystemUUID: word(root, "sys/class/dmi/id/product_uuid"), CPUs: runtime.NumCPU(), MemoryBytes: memory, DiskBytes: size,
	}, nil
}

// ReadPressure reads what the host is short of.
func ReadPressure(root, dir string) (Pressure, error) {
	available, err := memInfo(root, "MemAvailable")
	if err != nil {
		return Pressure{}, err
	}
	size, free, err := disk(dir)
	if err != nil {
		return Pressure{}, err
	}
	p := Pressure{Memory: available < minMemory, Disk: free*100 < size*minDiskPercent}
	limit, err := strconv.ParseInt(word(root, "proc/sys/kernel/pid_max"), 10, 64)
	if err != nil {
		return Pressure{}, fmt.Errorf("read pid_max: %w", err)
	}
	p.PIDs = tasks(word(root, "proc/loadavg"))*100 > limit*maxPIDPercent
	return p, nil
}

// tasks is the number after the slash of the fourth field of proc_loadavg(5).
func tasks(loadavg string) int64 {
	fields := strings.Fields(loadavg)
	if len(fields) < 4 {
		return 0
	}
	_, total, _ := strings.Cut(fields[3], "/")
	n, err := strconv.ParseInt(total, 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// memInfo reads a field of proc_meminfo(5), in bytes.
func memInfo(root, field string) (int64, error) {
	data, err := os.ReadFile(filepath.Join(root, "proc/meminfo"))
	if err != nil {
		return 0, fmt.Errorf("read memory size: %w", err)
	}
	for lines := bufio.NewScanner(bytes.NewReader(data)); lines.Scan(); {
		name, value, _ := strings.Cut(lines.Text(), ":")
		if name != field {
			continue
		}
		kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
		if err != nil {
			return 0, fmt.Errorf("read %s: %w", field, err)
		}
		return kib << 10, nil
	}
	return 0, fmt.Errorf("read memory size: no %s in /proc/meminfo", field)
}

func disk(dir string) (size, free int64, err error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, 0, fmt.Errorf("read size of file system of %s: %w", dir, err)
	}
	unit := st.Bsize
	return int64(st.Blocks) * unit, int64(st.Bavail) * unit, nil
}

func osImage(root string) string {
	for _, path := range []string{"etc/os-release", "usr/lib/os-release"} {
		data, err := os.ReadFile(filepath.Join(root, path))
		if err != nil {
			continue
		}
		for lines := bufio.NewScanner(bytes.NewReader(data)); lines.Scan(); {
			if name, value, _ := strings.Cut(lines.Text(), "="); name == "PRETTY_NAME" {
				return strings.Trim(value, `"'`)
			}
		}
	}
	return "Linux"
}

// word is a file's trimmed content, "" when it cannot be read.
func word(root, path string) string {
	data, err := os.ReadFile(filepath.Join(root, path))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(data))
}
