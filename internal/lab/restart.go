package lab

import (
	"context"
	"fmt"
	"slices"

	"weft/internal/lab/control"
)

// Restart stops a program and starts it with flags (--name=value) added to its own or replacing them, for this start and later ones. It
// returns when the program is ready.
func (l *Lab) Restart(ctx context.Context, hostName, program string, flags ...string) error {
	list, err := l.Programs(ctx, hostName)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(list, func(s control.Status) bool { return s.Name == program })
	if i < 0 {
		return fmt.Errorf("restart %s on %s: %w", program, hostName, control.ErrNoProgram)
	}
	if err := l.Stop(ctx, hostName, program); err != nil {
		return err
	}
	if err := l.Run(ctx, hostName, program, mergeFlags(list[i].Argv, flags)...); err != nil {
		return err
	}
	return l.WaitReady(ctx, hostName, program)
}

// Kubectl runs the real kubectl on the master, as the admin and with the master's files, and returns its standard output.
func (l *Lab) Kubectl(ctx context.Context, args ...string) (string, error) {
	master, err := l.master()
	if err != nil {
		return "", err
	}
	return l.Exec(ctx, master, append([]string{"kubectl"}, args...)...)
}
