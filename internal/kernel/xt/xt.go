// Package xt reads and applies iptables rules through iptables-save(8) and iptables-restore(8), of either variant (legacy, nf_tables).
//
// Floor 3, edges.
package xt

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"weft/internal/xt"
)

// ErrMissing says that a program of iptables is not installed.
var ErrMissing = errors.New("not installed: install the package iptables")

// Kernel is the rules of the network namespace the process is in.
type Kernel struct {
	// Variant is "" for the host's default programs, "nft" or "legacy" for one of the two by name.
	Variant string
	// Around is called around every program that changes rules, nil: nobody wants to know.
	Around func(do func() error) error
}

// Read returns the rules of both families, those of others too. A program that isn't installed is a family without rules: only
// Apply needs it.
func (k Kernel) Read(ctx context.Context) (xt.Ruleset, error) {
	var r xt.Ruleset
	for _, v6 := range []bool{false, true} {
		name := k.program(v6, "save")
		text, err := run(ctx, "", name)
		if errors.Is(err, ErrMissing) {
			continue
		}
		if err != nil {
			return xt.Ruleset{}, fmt.Errorf("read rules: %w", err)
		}
		if *r.Family(v6), err = xt.Parse(text); err != nil {
			return xt.Ruleset{}, fmt.Errorf("read rules with %s: %w", name, err)
		}
	}
	return r, nil
}

// program is the name of the save or restore program.
func (k Kernel) program(v6 bool, verb string) string {
	name := "iptables"
	if v6 {
		name = "ip6tables"
	}
	if k.Variant != "" {
		name += "-" + k.Variant
	}
	return name + "-" + verb
}

// sbin is where the programs are when PATH doesn't say so, as that of ordinary users.
var sbin = []string{"/usr/sbin", "/sbin", "/usr/local/sbin"}

func lookPath(name string) (string, error) {
	if path, err := exec.LookPath(name); err == nil {
		return path, nil
	}
	for _, dir := range sbin {
		if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("%s: %w", name, ErrMissing)
}

// programError is what a program said when it failed.
type programError struct {
	program, stderr string
	err             error
}

func (e *programError) Error() string {
	text := strings.Join(strings.FieldsFunc(e.stderr, func(c rune) bool { return c == '\n' }), "; ")
	if text == "" {
		text = e.err.Error()
	}
	if strings.Contains(text, "Permission denied") {
		text += ": weft needs root or CAP_NET_ADMIN in the network namespace"
	}
	return e.program + ": " + text
}

func (e *programError) Unwrap() error { return e.err }

func run(ctx context.Context, stdin, name string, args ...string) (string, error) {
	path, err := lookPath(name)
	if err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	cmd.Stdin = strings.NewReader(stdin)
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return "", fmt.Errorf("%s: %w", name, ctx.Err())
		}
		return "", &programError{name, errs.String(), err}
	}
	return out.String(), nil
}
