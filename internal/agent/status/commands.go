package status

import (
	"fmt"

	"github.com/spf13/cobra"

	"weft/internal/agent/rundir"
)

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
