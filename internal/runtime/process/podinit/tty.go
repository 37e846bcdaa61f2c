package podinit

import (
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"weft/internal/runtime"
)

// OpenTTY makes a pseudo-terminal (pty(7)): the side that a program uses and the side of whoever drives it.
func OpenTTY() (driver, program *os.File, err error) {
	driver, err = os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("open terminal: %w", err)
	}
	program, err = openPeer(driver)
	if err != nil {
		_ = driver.Close()
		return nil, nil, err
	}
	return driver, program, nil
}

func openPeer(driver *os.File) (*os.File, error) {
	var number, peer int
	err := control(driver, func(fd int) error {
		if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
			return fmt.Errorf("unlock terminal: %w", err)
		}
		var err error
		if number, err = unix.IoctlGetInt(fd, unix.TIOCGPTN); err != nil {
			return fmt.Errorf("number terminal: %w", err)
		}
		// By descriptor, not by name: /dev/pts may be another instance. It must not become our own controlling terminal.
		r, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
		if errno != 0 {
			return fmt.Errorf("open program's side of terminal: %w", errno)
		}
		peer = int(r)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(peer), "/dev/pts/"+strconv.Itoa(number)), nil
}

// control runs f with the descriptor and leaves the file in the poller, which File.Fd does not.
func control(f *os.File, do func(fd int) error) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var result error
	if err := raw.Control(func(fd uintptr) { result = do(int(fd)) }); err != nil {
		return err
	}
	return result
}

// SetSize sets the terminal's size; its foreground programs get SIGWINCH.
func SetSize(driver *os.File, s runtime.Size) error {
	return control(driver, func(fd int) error {
		if err := unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: s.Height, Col: s.Width}); err != nil {
			return fmt.Errorf("set terminal size: %w", err)
		}
		return nil
	})
}
