package cli

import (
	"slices"

	"github.com/spf13/cobra"

	"weft/internal/agent"
	"weft/internal/agent/cleanup"
	"weft/internal/agent/dockeropts"
	"weft/internal/agent/settings"
	"weft/internal/agent/status"
	"weft/internal/cli/network"
	"weft/internal/images"
	"weft/internal/lab"
	"weft/internal/runtime/process"
)

// commands returns the programs' commands; a new one is one line here.
func commands() []*cobra.Command {
	return slices.Concat([]*cobra.Command{
		agent.Command(Version),
		status.StatusCommand(),
		settings.Command(),
		status.StateCommand(),
		status.DiffCommand(),
		status.DebugCommand(),
		dockeropts.Command(),
		cleanup.Command(),
		explainCommand(),
		network.Command(),
		captureCommand(),
		graphCommand(),
		labCommand(),
		images.Command(),
		process.InitCommand(),
	}, lab.HiddenCommands())
}
