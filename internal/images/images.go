// Package images is what the built-in catalogue of runtime/process runs: the programs of `weft image NAME`.
//
// Floor 4, programs.
package images

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

// program serves until ctx ends, which is no error.
type program func(ctx context.Context, out io.Writer) error

// programs are the images that have a program of their own.
var programs = map[string]program{
	"nginx": func(ctx context.Context, out io.Writer) error { return listen(ctx, ":80", out, serveHTTP) },
	"sshd":  func(ctx context.Context, out io.Writer) error { return listen(ctx, ":22", out, serveSSH) },
	"pause": func(ctx context.Context, _ io.Writer) error { <-ctx.Done(); return nil },
}

// Command is the hidden command `weft image NAME`, the main program of a container of that image. It ends well when the context of the
// command does, which is how the command line passes SIGTERM on.
func Command() *cobra.Command {
	names := strings.Join(slices.Sorted(maps.Keys(programs)), ", ")
	return &cobra.Command{
		Use:    "image NAME",
		Short:  "run a built-in image's program: " + names,
		Args:   cobra.ExactArgs(1),
		Hidden: true,
		RunE: func(c *cobra.Command, args []string) error {
			run, ok := programs[args[0]]
			if !ok {
				return fmt.Errorf("image %q: not built in, there are %s", args[0], names)
			}
			// Many of these run on one machine and all of them mostly wait.
			debug.SetGCPercent(25)
			if err := os.WriteFile("/proc/self/comm", []byte(args[0]), 0); err != nil { // for ps and netstat -p
				return fmt.Errorf("name own process: %w", err)
			}
			debug.FreeOSMemory()
			return run(c.Context(), c.OutOrStdout())
		},
	}
}

// listen opens the TCP address in both families and hands the listener to serve, which ends when the listener is closed.
func listen(ctx context.Context, addr string, out io.Writer, serve func(net.Listener, io.Writer) error) error {
	var config net.ListenConfig
	l, err := config.Listen(ctx, "tcp", addr)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	fmt.Fprintf(out, "listening on %s\n", l.Addr())
	if err := serve(l, out); err != nil && ctx.Err() == nil {
		return fmt.Errorf("serve %s: %w", addr, err)
	}
	return nil
}

// hostname is the pod's name.
func hostname() string {
	name, err := os.Hostname()
	if err != nil {
		return "unknown"
	}
	return name
}
