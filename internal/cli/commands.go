package cli

import "github.com/spf13/cobra"

// commands returns the programs' commands; a new one is one line here.
func commands() []*cobra.Command {
	return []*cobra.Command{}
}
