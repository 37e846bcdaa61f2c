// Package sysctl reads and applies kernel parameters through /proc/sys (proc(5)). Those below net/ are those of the calling thread's
// network namespace: run it in another one with netns.Do.
//
// Floor 3, edges.
package sysctl

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"weft/internal/netstate"
)

// root is where the parameters are.
const root = "/proc/sys"

// Read returns the wanted parameters as they are now. One that does not exist is left out: its device may not be there yet.
// Parameters bear no mark, so what was once set and is no longer wanted stays.
func Read(want netstate.State) (netstate.State, error) {
	have := netstate.New()
	var errs []error
	for id := range want.All() {
		if id.Kind != netstate.KindSysctl {
			continue
		}
		value, err := Get(id.Key)
		switch {
		case errors.Is(err, os.ErrNotExist):
		case err != nil:
			errs = append(errs, err)
		default:
			have.Add(netstate.Sysctl{Name: id.Key, Value: value})
		}
	}
	return have, errors.Join(errs...)
}

// Apply sets the parameters of the ops. One that fails does not stop the others. A deletion leaves the value as it is.
func Apply(ops []netstate.Op) error {
	var errs []error
	for _, op := range ops {
		s, ok := op.Object.(netstate.Sysctl)
		if !ok {
			errs = append(errs, fmt.Errorf("%s: not a sysctl", op))
			continue
		}
		if op.Verb == netstate.Del {
			continue
		}
		if err := set(s); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// Exists reports whether the kernel has the parameter or directory of parameters, as net/ipv6 or net/bridge.
func Exists(name string) bool {
	path, err := file(name)
	if err != nil {
		return false
	}
	_, err = os.Stat(path)
	return err == nil
}

// Get returns the parameter's value, fields separated by single spaces.
func Get(name string) (string, error) {
	path, err := file(name)
	if err != nil {
		return "", err
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("read sysctl: %w", err)
	}
	return strings.Join(strings.Fields(string(b)), " "), nil
}

// Raise sets a parameter that is a number to at least n, and reports what it was and whether it was raised. os.ErrPermission says that this
// network namespace only reads it.
func Raise(name string, n int) (was int, raised bool, err error) {
	text, err := Get(name)
	if err != nil {
		return 0, false, err
	}
	if was, err = strconv.Atoi(text); err != nil {
		return 0, false, fmt.Errorf("sysctl %s: %w", name, err)
	}
	if was >= n {
		return was, false, nil
	}
	err = set(netstate.Sysctl{Name: name, Value: strconv.Itoa(n)})
	return was, err == nil, err
}

func set(s netstate.Sysctl) error {
	path, err := file(s.Name)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0) // never create: /proc/sys has what there is
	if err != nil {
		return fmt.Errorf("sysctl -w %s: %w", s, err)
	}
	_, werr := f.WriteString(s.Value + "\n")
	if err := errors.Join(werr, f.Close()); err != nil {
		return fmt.Errorf("sysctl -w %s: %w", s, err)
	}
	return nil
}

// file is the parameter's path; a name may not lead out of /proc/sys.
func file(name string) (string, error) {
	if !filepath.IsLocal(name) {
		return "", fmt.Errorf("sysctl name %q: want a path below %s, as net/ipv4/ip_forward", name, root)
	}
	return filepath.Join(root, name), nil
}
