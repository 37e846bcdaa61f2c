package lab

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"syscall"

	"github.com/spf13/cobra"

	"weft/internal/lab/host"
)

// The commands with which a lab re-executes its own binary.
const (
	supervisorCommand = "lab-supervisor"
	hostCommand       = "lab-host"
)

// HiddenCommands are the commands a lab's own processes run: not for users.
func HiddenCommands() []*cobra.Command {
	return []*cobra.Command{
		{
			Use: supervisorCommand + " DIR", Hidden: true, Args: cobra.ExactArgs(1),
			RunE: func(c *cobra.Command, args []string) error {
				return supervise(c.Context(), args[0], c.ErrOrStderr())
			},
		},
		{
			Use: hostCommand + " NAME", Hidden: true, Args: cobra.ExactArgs(1),
			RunE: func(c *cobra.Command, _ []string) error {
				for _, fd := range []int{fdConfig, fdAnswer} {
					syscall.CloseOnExec(fd)
				}
				return host.Run(c.Context(), os.NewFile(fdConfig, "config"), os.NewFile(fdAnswer, "answer"))
			},
		},
	}
}

// Helper is for test binaries that make labs. A lab re-executes the binary that made it, so TestMain calls Helper first and exits with
// the code when ran is true:
//
//	if code, ran := lab.Helper(os.Args[1:]); ran {
//		os.Exit(code)
//	}
func Helper(args []string) (code int, ran bool) {
	commands := HiddenCommands()
	i := slices.IndexFunc(commands, func(c *cobra.Command) bool { return len(args) > 0 && c.Name() == args[0] })
	if i < 0 {
		return 0, false
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	c := commands[i]
	c.SetArgs(args[1:])
	c.SilenceUsage, c.SilenceErrors = true, true
	if err := c.ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1, true
	}
	return 0, true
}
