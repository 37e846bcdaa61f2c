package netns

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// Environment of a test binary that Main has re-executed.
const (
	envStage = "WEFT_TEST_NETNS"  // "setup": make the mounts; "ready": all made; "none": no namespaces here
	envWhy   = "WEFT_TEST_REASON" // with "none": why

	// envUser set to "0" leaves out the user namespace when root runs the tests, for what the kernel grants only to real root (eBPF).
	envUser = "WEFT_TEST_USERNS"
)

// setupFailed is the exit code of a re-executed test binary whose mounts could not be made.
const setupFailed = 125

// Main is the TestMain of kernel tests:
//
//	func TestMain(m *testing.M) { os.Exit(netns.Main(m)) }
//
// It runs the whole test binary once more in fresh user, network, mount, PID, IPC and UTS namespaces, as root and as any other user:
// the caller is mapped to root, lo is up, /proc is the new namespaces' own with a writable /proc/sys, /run is private.
// What the tests start dies with them. Where the kernel refuses, the tests run where they are and those that call Need are skipped.
//
// As root, WEFT_TEST_USERNS=0 leaves the user namespace out.
func Main(m interface{ Run() int }) int {
	switch os.Getenv(envStage) {
	case "setup":
		if err := setup(); err != nil {
			fmt.Fprintln(os.Stderr, "netns:", err)
			return setupFailed
		}
		if err := os.Setenv(envStage, "ready"); err != nil { // children of the tests, as fuzz workers, find everything made
			return setupFailed
		}
		return m.Run()
	case "":
		code, err := reexec(unix.CLONE_NEWPID)
		if err != nil {
			code, err = reexec(0) // containers often refuse a new /proc, which a PID namespace needs
		}
		if err == nil {
			return code
		}
		if os.Setenv(envStage, "none") != nil || os.Setenv(envWhy, err.Error()) != nil {
			return setupFailed
		}
	}
	return m.Run()
}

// Need skips the test when the namespaces of Main could not be made, and fails it when TestMain does not call Main: a kernel test
// never runs on the host.
func Need(t interface {
	Helper()
	Skip(args ...any)
	Fatal(args ...any)
},
) {
	t.Helper()
	switch os.Getenv(envStage) {
	case "ready":
	case "none":
		t.Skip("no namespaces for kernel tests:", os.Getenv(envWhy))
	default:
		t.Fatal("kernel test outside namespaces: TestMain must call netns.Main")
	}
}

// reexec runs the test binary again in new namespaces and returns its exit code, or an error when it could not be set up.
func reexec(extra uintptr) (int, error) {
	runtime.LockOSThread() // Pdeathsig fires when the thread that started the child ends
	defer runtime.UnlockOSThread()
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), envStage+"=setup")
	attr := &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | extra,
		Pdeathsig:  syscall.SIGKILL,
	}
	if os.Getuid() != 0 || os.Getenv(envUser) != "0" {
		attr.Cloneflags |= unix.CLONE_NEWUSER
		attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	cmd.SysProcAttr = attr
	signal.Ignore(syscall.SIGINT) // the terminal sends it to the child too, which reports what it was at
	defer signal.Reset(syscall.SIGINT)
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0, nil
	case errors.As(err, &exit) && exit.ExitCode() == setupFailed:
		return 0, errors.New("mounts refused in a new user namespace")
	case errors.As(err, &exit):
		return max(exit.ExitCode(), 1), nil
	}
	return 0, fmt.Errorf("start in new namespaces: %w", err)
}

// setup makes the mounts of the new namespaces.
func setup() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if os.Getpid() == 1 {
		if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
			return fmt.Errorf("mount /proc: %w", err)
		}
	}
	if err := privateRun(); err != nil {
		return err
	}
	if err := loopbackUp(); err != nil {
		return err
	}
	return writableSysctl()
}

// privateRun mounts a private /run, where xtables.lock and named namespaces live. A working directory or a test binary
// below it would become unreachable, so /run is then left alone.
func privateRun() error {
	wd, err := os.Getwd()
	if err != nil {
		return fmt.Errorf("read working directory: %w", err)
	}
	if len(wd) >= 5 && wd[:5] == "/run/" {
		return nil
	}
	if err := unix.Mount("tmpfs", "/run", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755"); err != nil {
		return fmt.Errorf("mount private /run: %w", err)
	}
	return nil
}

// writableSysctl proves that sysctls of the new network namespace can be written; a container may have /proc/sys read-only.
func writableSysctl() error {
	const file = "/proc/sys/net/ipv4/ip_forward"
	b, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("read sysctl: %w", err)
	}
	if err := os.WriteFile(file, b, 0); err != nil {
		return fmt.Errorf("write sysctl: %w", err)
	}
	return nil
}
