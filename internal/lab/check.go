package lab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"weft/internal/lab/host"
)

// privileged says that this process may make namespaces without a user namespace: root, and not in a container that took the right
// away.
func privileged() bool {
	if os.Geteuid() != 0 {
		return false
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return false
	}
	const need = 1<<unix.CAP_SYS_ADMIN | 1<<unix.CAP_NET_ADMIN
	return data[0].Effective&need == need
}

// tools maps the programs the lab calls to the Debian packages that hold them.
var tools = []struct{ program, pkg, why string }{
	{"ip", "iproute2", ""},
	{"nsenter", "util-linux", ""},
	{"iptables-save", "iptables", "cluster"},
	{"iptables-restore", "iptables", "cluster"},
}

// Check says what this machine lacks for a lab, all of it in one error: tools, user namespaces and, with cluster, weft's binaries in bin.
func Check(cluster bool, bin string) error {
	var missing, packages []string
	for _, t := range tools {
		if t.why == "cluster" && !cluster {
			continue
		}
		if _, err := host.Find(t.program); err != nil {
			missing = append(missing, t.program)
			if !strings.Contains(" "+strings.Join(packages, " ")+" ", " "+t.pkg+" ") {
				packages = append(packages, t.pkg)
			}
		}
	}
	var errs []error
	if len(missing) > 0 {
		fix := "sudo apt-get install " + strings.Join(packages, " ")
		if os.Geteuid() == 0 {
			fix = "apt-get install " + strings.Join(packages, " ") + ", or: make deps"
		}
		errs = append(errs, fmt.Errorf("missing: %s (package %s): install with: %s",
			strings.Join(missing, ", "), strings.Join(packages, ", "), fix))
	}
	if cluster {
		errs = append(errs, checkBinaries(bin))
	}
	if !privileged() {
		errs = append(errs, checkUserNamespaces("/proc/sys"))
	}
	return errors.Join(errs...)
}

func checkBinaries(bin string) error {
	var missing []string
	for _, b := range []string{"weft", "weft-server", "kubectl"} {
		if unix.Access(filepath.Join(bin, b), unix.X_OK) != nil {
			missing = append(missing, b)
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("missing in %s: %s: build with: make build", bin, strings.Join(missing, ", "))
	}
	return nil
}

// userSysctls lists what a distribution or an operator may have set against user namespaces.
var userSysctls = []struct{ file, bad, fix string }{
	{"kernel/unprivileged_userns_clone", "0", "1"},
	{"user/max_user_namespaces", "0", "10000"},
	{"kernel/apparmor_restrict_unprivileged_userns", "1", "0"},
}

func checkUserNamespaces(sys string) error {
	for _, s := range userSysctls {
		b, err := os.ReadFile(filepath.Join(sys, s.file))
		if err == nil && strings.TrimSpace(string(b)) == s.bad {
			key := strings.ReplaceAll(s.file, "/", ".")
			return fmt.Errorf("%s is %s: without it only root can make a lab: sudo sysctl -w %s=%s, or run as root", key, s.bad, key, s.fix)
		}
	}
	return nil
}

// startError explains why the supervisor's namespaces were refused.
func startError(err error, rootless bool) error {
	switch {
	case rootless && (errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES)):
		return fmt.Errorf("make user namespace: %w: this machine or container forbids it: run as root", err)
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EUSERS):
		return fmt.Errorf("make namespaces: %w: too many exist: see sysctl user.max_user_namespaces and user.max_net_namespaces", err)
	}
	return fmt.Errorf("start supervisor: %w", err)
}
