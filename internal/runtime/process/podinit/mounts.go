package podinit

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"weft/internal/runtime"
)

// makeInside makes what a pod sees differently from its host: /proc, /sys, /dev/shm, three files of /etc, its hostname, and lo.
func makeInside(dir string, sb *runtime.Sandbox, log *slog.Logger) error {
	// Slave, so that what the host unmounts goes here too and is not kept alive by the pod.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return fmt.Errorf("separate mounts from the host's: %w", err)
	}
	const safe = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	if err := unix.Mount("proc", "/proc", "proc", safe, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	if err := unix.Mount("tmpfs", "/dev/shm", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=1777"); err != nil {
		log.Warn("no private /dev/shm", "err", err)
	}
	if !sb.HostNetwork {
		// sysfs shows the interfaces of the namespace that mounted it.
		if err := unix.Mount("sysfs", "/sys", "sysfs", safe|unix.MS_RDONLY, ""); err != nil {
			log.Warn("/sys shows the host's interfaces", "err", err)
		}
		if err := loopbackUp(); err != nil {
			return err
		}
	}
	if sb.Hostname != "" {
		if err := unix.Sethostname([]byte(sb.Hostname)); err != nil {
			return fmt.Errorf("set hostname %q: %w", sb.Hostname, err)
		}
	}
	return makeEtc(dir, sb, log)
}

// makeEtc writes the pod's files of /etc and mounts them over the host's. One that the host does not have cannot be mounted over; the
// pod then has none either.
func makeEtc(dir string, sb *runtime.Sandbox, log *slog.Logger) error {
	files := map[string]string{}
	if !sb.HostNetwork {
		files["hosts"] = hosts(sb.Hostname, nil)
	}
	if sb.Hostname != "" {
		files["hostname"] = sb.Hostname + "\n"
	}
	if len(sb.Nameservers) > 0 {
		files["resolv.conf"] = resolvConf(sb)
	}
	if err := os.MkdirAll(filepath.Join(dir, etcDir), 0o755); err != nil {
		return fmt.Errorf("make etc: %w", err)
	}
	for name, text := range files {
		source := filepath.Join(dir, etcDir, name)
		if err := os.WriteFile(source, []byte(text), 0o644); err != nil {
			return fmt.Errorf("write %s: %w", name, err)
		}
		err := unix.Mount(source, "/etc/"+name, "", unix.MS_BIND, "")
		if errors.Is(err, unix.ENOENT) {
			log.Warn("the host has no such file to mount the pod's over", "file", "/etc/"+name)
			continue
		}
		if err != nil {
			return fmt.Errorf("mount /etc/%s: %w", name, err)
		}
	}
	return nil
}

// hosts is the text of hosts(5): the pod's addresses with its name.
func hosts(hostname string, addrs []netip.Addr) string {
	var b strings.Builder
	b.WriteString("# the pod's, written by weft\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n")
	for _, a := range addrs {
		fmt.Fprintf(&b, "%s\t%s\n", a, hostname)
	}
	return b.String()
}

// resolvConf is the text of resolv.conf(5).
func resolvConf(sb *runtime.Sandbox) string {
	var b strings.Builder
	for _, n := range sb.Nameservers {
		fmt.Fprintf(&b, "nameserver %s\n", n)
	}
	if len(sb.Searches) > 0 {
		fmt.Fprintf(&b, "search %s\noptions ndots:5\n", strings.Join(sb.Searches, " "))
	}
	return b.String()
}

// updateHosts writes the addresses that the pod has now. The mounted file is written in place: the mount is of the file itself.
func updateHosts(dir string, sb *runtime.Sandbox) error {
	if sb.HostNetwork || sb.Hostname == "" {
		return nil
	}
	all, err := net.InterfaceAddrs()
	if err != nil {
		return fmt.Errorf("read own addresses: %w", err)
	}
	var addrs []netip.Addr
	for _, a := range all {
		p, err := netip.ParsePrefix(a.String())
		if err == nil && !p.Addr().IsLoopback() && !p.Addr().IsLinkLocalUnicast() {
			addrs = append(addrs, p.Addr())
		}
	}
	if err := os.WriteFile(filepath.Join(dir, etcDir, "hosts"), []byte(hosts(sb.Hostname, addrs)), 0o644); err != nil {
		return fmt.Errorf("write hosts: %w", err)
	}
	return nil
}

// loopbackUp sets lo up, through netdevice(7).
func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open socket for lo: %w", err)
	}
	defer func() { _ = unix.Close(fd) }()
	ifr, err := unix.NewIfreq("lo")
	if err != nil {
		return fmt.Errorf("name lo: %w", err)
	}
	ifr.SetUint16(unix.IFF_UP | unix.IFF_LOOPBACK | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, ifr); err != nil {
		return fmt.Errorf("set lo up: %w", err)
	}
	return nil
}
