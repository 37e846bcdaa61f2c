package host

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Places that exist on lab hosts only.
const (
	BinDir  = "/weft/bin" // weft's binaries
	etcReal = "/.etc"     // the machine's /etc; as deep as /etc, so that links with .. in it lead where they should
)

// disk lists the directories a host has of its own on the machine's disk: they stay until the lab is taken down.
var disk = []string{"etc", "var", "root"}

// special lists what the host does not take from the machine's root directory.
var special = map[string]bool{"etc": true, "var": true, "root": true, "proc": true, "sys": true, "dev": true, "run": true, "tmp": true}

// mounts makes the host's file system and moves into it. The machine's directories are there, read-only; /etc, /var, /root, /run and
// /tmp are the host's own; /proc and /sys show its own processes and links.
func mounts(c Config) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	for _, d := range append([]string{"new"}, disk...) {
		if err := os.MkdirAll(dir(c.State, c.Name, d), 0o755); err != nil {
			return fmt.Errorf("make host directory: %w", err)
		}
	}
	root := dir(c.State, c.Name, "new")
	if err := unix.Mount("tmpfs", root, "tmpfs", 0, "mode=755"); err != nil {
		return fmt.Errorf("mount root of %s: %w", c.Name, err)
	}
	for _, step := range []func(Config, string) error{machine, own, kernel} {
		if err := step(c, root); err != nil {
			return err
		}
	}
	return pivot(root)
}

// machine mounts what the host shares with the machine.
func machine(c Config, root string) error {
	entries, err := os.ReadDir("/")
	if err != nil {
		return fmt.Errorf("list root directory: %w", err)
	}
	for _, e := range entries {
		from, to := filepath.Join("/", e.Name()), filepath.Join(root, e.Name())
		switch {
		case special[e.Name()]:
		case e.Type()&os.ModeSymlink != 0:
			if err := relink(from, to); err != nil {
				return err
			}
		case e.IsDir():
			if err := bind(from, to, true); err != nil {
				return err
			}
		}
	}
	if err := bind("/etc", filepath.Join(root, etcReal), true); err != nil {
		return err
	}
	if c.Bin != "" {
		if err := bind(c.Bin, filepath.Join(root, BinDir), true); err != nil {
			return err
		}
	}
	return bind("/dev", filepath.Join(root, "dev"), false)
}

// own mounts what the host has of its own and writes the files that make it a host.
func own(c Config, root string) error {
	for _, d := range disk {
		if err := bind(dir(c.State, c.Name, d), filepath.Join(root, d), false); err != nil {
			return err
		}
	}
	for d, mode := range map[string]string{"run": "755", "tmp": "1777"} {
		to := filepath.Join(root, d)
		if err := os.Mkdir(to, 0o755); err != nil {
			return fmt.Errorf("make mount point: %w", err)
		}
		if err := unix.Mount("tmpfs", to, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode="+mode); err != nil {
			return fmt.Errorf("mount /%s: %w", d, err)
		}
	}
	for _, d := range []string{"run/lock", "var/lib/weft", "var/log", "var/cache", "var/tmp", "etc/weft"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			return fmt.Errorf("make host directory: %w", err)
		}
	}
	if err := os.Symlink("/run", filepath.Join(root, "var/run")); err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("link /var/run: %w", err)
	}
	return files(c, root)
}

// files writes the host's own files; the rest of /etc are links to the machine's.
func files(c Config, root string) error {
	var hosts strings.Builder
	hosts.WriteString("127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n")
	for _, e := range c.Hosts {
		fmt.Fprintf(&hosts, "%s %s\n", e.Address, e.Name)
	}
	for name, text := range map[string]string{
		"etc/hosts":       hosts.String(),
		"etc/hostname":    c.Name + "\n",
		"etc/resolv.conf": "# a lab host has no name server: its peers are in /etc/hosts\n",
		"root/.bashrc":    "PS1='[\\u@\\h \\W]\\$ '\n",
	} {
		if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o644); err != nil {
			return fmt.Errorf("write host's file: %w", err)
		}
	}
	entries, err := os.ReadDir("/etc")
	if err != nil {
		return fmt.Errorf("list /etc: %w", err)
	}
	for _, e := range entries {
		to := filepath.Join(root, "etc", e.Name())
		if _, err := os.Lstat(to); err == nil {
			continue
		}
		if e.Type()&os.ModeSymlink != 0 {
			err = relink(filepath.Join("/etc", e.Name()), to)
		} else {
			err = os.Symlink(filepath.Join(etcReal, e.Name()), to)
		}
		if err != nil {
			return fmt.Errorf("link %s: %w", e.Name(), err)
		}
	}
	return nil
}

// kernel mounts the kernel's file systems as the host sees them.
func kernel(_ Config, root string) error {
	const flags = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	for _, fs := range []string{"proc", "sys"} {
		if err := os.Mkdir(filepath.Join(root, fs), 0o755); err != nil {
			return fmt.Errorf("make mount point: %w", err)
		}
	}
	if err := unix.Mount("proc", filepath.Join(root, "proc"), "proc", flags, ""); err != nil {
		return fmt.Errorf("mount /proc (a container that hides parts of /proc forbids this): %w", err)
	}
	if err := unix.Mount("sysfs", filepath.Join(root, "sys"), "sysfs", flags, ""); err != nil {
		return fmt.Errorf("mount /sys (a container that hides parts of /sys forbids this): %w", err)
	}
	if _, err := os.Stat("/sys/fs/cgroup"); err == nil {
		if err := unix.Mount("/sys/fs/cgroup", filepath.Join(root, "sys/fs/cgroup"), "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
			return fmt.Errorf("mount /sys/fs/cgroup: %w", err)
		}
	}
	// Pinned BPF objects are the host's own. A kernel without BPF has nothing to pin.
	err := unix.Mount("bpf", filepath.Join(root, "sys/fs/bpf"), "bpf", flags, "mode=700")
	if err != nil && !errors.Is(err, unix.ENODEV) && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.EPERM) {
		return fmt.Errorf("mount /sys/fs/bpf: %w", err)
	}
	return nil
}

// bind mounts a directory with all that is mounted in it.
func bind(from, to string, readOnly bool) error {
	if err := os.MkdirAll(to, 0o755); err != nil {
		return fmt.Errorf("make mount point: %w", err)
	}
	if err := unix.Mount(from, to, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("bind %s: %w", from, err)
	}
	if !readOnly {
		return nil
	}
	// Kernels before 5.12 cannot change a whole tree: there the machine's files stay as writable as they are outside.
	attr := &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
	if err := unix.MountSetattr(unix.AT_FDCWD, to, unix.AT_RECURSIVE, attr); err != nil && !errors.Is(err, unix.ENOSYS) {
		return fmt.Errorf("make %s read-only: %w", from, err)
	}
	return nil
}

func relink(from, to string) error {
	target, err := os.Readlink(from)
	if err != nil {
		return fmt.Errorf("read link: %w", err)
	}
	if err := os.Symlink(target, to); err != nil {
		return fmt.Errorf("make link: %w", err)
	}
	return nil
}

// pivot makes root the root directory and lets go of the old one (pivot_root(2), "pivot_root(".", ".")").
func pivot(root string) error {
	if err := unix.Chdir(root); err != nil {
		return fmt.Errorf("enter new root: %w", err)
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("change root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount old root: %w", err)
	}
	if err := unix.Chdir("/"); err != nil {
		return fmt.Errorf("enter new root: %w", err)
	}
	return nil
}
