// Package cli is the command line of weft: it mounts every program's commands on one tree and turns an error into one
// line and an exit code.
//
// Floor 4, programs.
package cli

import (
	"context"
	"fmt"
	"io"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"weft/internal/lab"
)

// Version is the product's version, set by the linker.
var Version = "dev"

// Main runs the command line and returns the exit code: 0 done, 1 failed, 2 wrong usage.
func Main(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	root := Root()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	c, err := root.ExecuteContextC(ctx)
	if err == nil {
		return 0
	}
	if code, ok := lab.ExitStatus(err); ok {
		return code // a command on a lab's host has said what went wrong itself
	}
	text := strings.TrimSpace(err.Error())
	if isUsage(text) {
		fmt.Fprintf(stderr, "weft: %s (see %s --help)\n", oneLine(text), c.CommandPath())
		return 2
	}
	fmt.Fprintf(stderr, "weft: %s\n", text)
	return 1
}

// oneLine folds the list of similar commands that cobra puts below an error.
func oneLine(text string) string {
	text, similar, ok := strings.Cut(text, "\n\nDid you mean this?\n")
	if !ok {
		return text
	}
	return text + ": did you mean " + strings.Join(strings.Fields(similar), " or ") + "?"
}

func isUsage(text string) bool {
	for _, p := range []string{"unknown command", "unknown flag", "unknown shorthand", "required flag", "invalid argument", "accepts "} {
		if strings.HasPrefix(text, p) {
			return true
		}
	}
	return false
}

// Root returns the whole command tree.
func Root() *cobra.Command {
	root := &cobra.Command{
		Use:   "weft",
		Short: "one cluster network: pod addresses, service addresses, and why a packet went where it went",
		Long: `weft gives every container on every host of a cluster an address of its own (flannel's job),
every service one stable virtual address (kube-proxy's job), and can say why each packet went where it went.

To see a whole three-host cluster on this machine:  weft lab demo`,
		Version:       Version,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.AddCommand(versionCommand())
	root.AddCommand(commands()...)
	return root
}

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "print the version and what it was built with",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			goVersion := ""
			if info, ok := debug.ReadBuildInfo(); ok {
				goVersion = info.GoVersion
			}
			_, err := fmt.Fprintf(c.OutOrStdout(), "weft %s %s\n", Version, goVersion)
			return err
		},
	}
}
