package server

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// dataDir is the server's directory, locked against a second server for as long as it is open.
type dataDir struct {
	path string
	lock *os.File
	made bool // the directory was made by this process, so a start that fails takes it away again
}

// openDataDir makes path when it is missing, checks that it can be written, and locks it.
func openDataDir(path string) (*dataDir, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("--data-dir: %w", err)
	}
	_, err = os.Stat(path)
	d := &dataDir{path: path, made: errors.Is(err, fs.ErrNotExist)}
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("--data-dir: %w", hint(err))
	}
	d.lock, err = os.OpenFile(filepath.Join(path, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("--data-dir: %w", hint(err))
	}
	if err := unix.Flock(int(d.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = d.lock.Close()
		return nil, fmt.Errorf("--data-dir %s is in use by another weft-server: stop it, or give another directory", path)
	}
	for _, sub := range []string{d.pki(), d.nodes()} {
		if err := os.MkdirAll(sub, 0o700); err != nil {
			return nil, errors.Join(fmt.Errorf("--data-dir: %w", hint(err)), d.abandon())
		}
	}
	return d, nil
}

// hint says what to do about a refused directory.
func hint(err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%w (run as its owner or root, or give a directory of your own)", err)
	}
	return err
}

func (d *dataDir) pki() string             { return filepath.Join(d.path, "pki") }
func (d *dataDir) etcd() string            { return filepath.Join(d.path, "etcd") }
func (d *dataDir) nodes() string           { return filepath.Join(d.path, "nodes") }
func (d *dataDir) adminKubeconfig() string { return filepath.Join(d.path, "admin.kubeconfig") }

// close lets the next server in.
func (d *dataDir) close() error { return d.lock.Close() }

// abandon closes the directory of a start that failed; nothing stays behind of a directory this process made.
func (d *dataDir) abandon() error {
	err := d.lock.Close()
	if d.made {
		err = errors.Join(err, os.RemoveAll(d.path))
	}
	return err
}
