package agent

import (
	"io"
	"log/slog"

	"github.com/spf13/cobra"

	"weft/internal/agent/settings"
)

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
