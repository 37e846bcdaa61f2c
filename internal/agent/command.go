package agent

import (
	"errors"
	"fmt"
	"io"
	"log/slog"

	"github.com/spf13/cobra"

	"weft/internal/agent/rundir"
	"weft/internal/agent/settings"
)

// errNoRules says that the service rules were not programmed yet.
var errNoRules = errors.New("the service rules are not programmed yet")

// Command is "weft agent".
func Command(version string) *cobra.Command {
	cfg := settings.New(version)
	c := &cobra.Command{
		Use:   "agent",
		Short: "the node agent: overlay, services, pods",
		Long: `The node agent leases the node's pod subnet, keeps overlay, pod attachments and service rules in the kernel as planned,
and runs the node's pods. --config names a file with settings that is followed. What it made stays when it ends: traffic goes on, and the next start changes nothing.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			cfg.CommandLine(c.Flags())
			return Run(c.Context(), cfg, newLog(c.ErrOrStderr(), cfg.LogLevel()))
		},
	}
	cfg.Flags(c.Flags())
	return c
}

func newLog(w io.Writer, level slog.Leveler) *slog.Logger {
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: level}))
}

// StatusCommand is "weft status".
func StatusCommand() *cobra.Command {
	var runDir, output string
	c := &cobra.Command{
		Use:   "status",
		Short: "what the agent on this host does",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			body, err := rundir.Ask(c.Context(), runDir, "/status")
			if err != nil {
				return err
			}
			switch output {
			case "json":
				_, err = c.OutOrStdout().Write(body)
				return err
			case "":
				return printStatus(c.OutOrStdout(), body)
			}
			return fmt.Errorf("--output=%s: want json, or leave it out", output)
		},
	}
	c.Flags().StringVar(&runDir, "run-dir", "/run/weft", "the agent's run directory")
	c.Flags().StringVarP(&output, "output", "o", "", "json")
	return c
}

// StateCommand is "weft state".
func StateCommand() *cobra.Command {
	return askCommand("state", "every kernel object the agent on this host wants, one line each", "/state")
}

// DiffCommand is "weft diff".
func DiffCommand() *cobra.Command {
	return askCommand("diff", "what the agent on this host would do to the kernel now, as commands; nothing when all is as planned", "/diff")
}

func askCommand(use, short, path string) *cobra.Command {
	var runDir string
	c := &cobra.Command{
		Use:   use,
		Short: short,
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			body, err := rundir.Ask(c.Context(), runDir, path)
			if err == nil {
				_, err = c.OutOrStdout().Write(body)
			}
			return err
		},
	}
	c.Flags().StringVar(&runDir, "run-dir", "/run/weft", "the agent's run directory")
	return c
}
