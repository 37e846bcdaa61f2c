package cli

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"weft/internal/lab"
	"weft/internal/lab/topology"
	"weft/internal/replay"
)

// labCommand is "weft lab" with what needs more than the lab itself.
func labCommand() *cobra.Command {
	c := lab.Command()
	c.AddCommand(demoCommand(), labGraphCommand())
	return c
}

func demoCommand() *cobra.Command {
	var keep bool
	var name string
	c := &cobra.Command{
		Use:   "demo",
		Short: "bring up the walkthrough's cluster, replay it, check every row, clean up",
		Long: `Demo makes a lab of the walkthrough's three hosts (kube-master 172.17.42.30, kube-node1 .31, kube-node2 .32), starts the
real programs on them, performs the walkthrough row by row with the commands' real output, and checks each row. It ends with an
exit code other than 0 when a row fails.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return demo(c, name, keep)
		},
	}
	c.Flags().BoolVar(&keep, "keep", false, "leave the cluster up and say what to try")
	c.Flags().StringVar(&name, "name", "demo", "name of the lab")
	return c
}

func demo(c *cobra.Command, name string, keep bool) error {
	err := demoFlannel(c, name, keep)
	if c.Context().Err() != nil {
		return err
	}
	return errors.Join(err, demoL2(c, name+"-l2"))
}

// demoL2 replays the row that needs another network: the article's docker overlay.
func demoL2(c *cobra.Command, name string) (err error) {
	out := c.OutOrStdout()
	fmt.Fprintln(out, "\nAnother cluster, whose network has the backend l2:")
	t := topology.Walkthrough()
	t.Cluster.Backend.Type = "l2"
	l, err := lab.Up(c.Context(), t, lab.Options{Name: name, Progress: out, Attached: true})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Down()) }()
	_, err = replay.RunL2(c.Context(), l, out, replay.Options{Color: colored(out)})
	return err
}

func demoFlannel(c *cobra.Command, name string, keep bool) (err error) {
	out := c.OutOrStdout()
	l, err := lab.Up(c.Context(), topology.Walkthrough(), lab.Options{Name: name, Progress: out, Attached: !keep})
	if err != nil {
		return err
	}
	defer func() {
		if keep {
			fmt.Fprintf(out, "\nThe cluster is up. Try:\n  weft lab status --name %[1]s\n  weft lab kubectl --name %[1]s get pods -o wide\n"+
				"  weft lab sh --name %[1]s kube-node1\n  weft lab graph --name %[1]s\n  weft lab down --name %[1]s\n", name)
			return
		}
		err = errors.Join(err, l.Down())
	}()
	_, err = replay.Run(c.Context(), l, out, replay.Options{Color: colored(out)})
	return err
}

// colored says whether escape sequences are wanted: on a terminal, unless NO_COLOR is set.
func colored(out any) bool {
	f, ok := out.(*os.File)
	if !ok || os.Getenv("NO_COLOR") != "" {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

func labGraphCommand() *cobra.Command {
	var svg, flow, name string
	c := &cobra.Command{
		Use:   "graph",
		Short: "draw the lab's topology, or the way of one packet",
		Example: `  weft lab graph
  weft lab graph --svg topology.svg
  weft lab graph --flow default/sshd-2,my-nginx-service --svg flow.svg`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			l, err := lab.Open(name)
			if err != nil {
				return err
			}
			return labGraph(c.Context(), l, c, flow, svg)
		},
	}
	c.Flags().StringVar(&svg, "svg", "", "write an SVG file instead of text")
	c.Flags().StringVar(&flow, "flow", "", "FROM,TO: the way of a packet instead of the topology")
	c.Flags().StringVar(&name, "name", lab.DefaultName, "name of the lab")
	return c
}

// labGraph asks "weft graph" or "weft explain" on the master, which has the admin's credentials.
func labGraph(ctx context.Context, l *lab.Lab, c *cobra.Command, flow, svg string) error {
	masters := l.Topology().With(topology.Master)
	if len(masters) == 0 {
		return errors.New("the lab has no master: there is no API to read the topology from")
	}
	argv, err := graphArgs(flow, svg != "", masters)
	if err != nil {
		return err
	}
	out, err := l.Exec(ctx, masters[0].Name, argv...)
	if err != nil {
		return err
	}
	if svg == "" {
		_, err = fmt.Fprint(c.OutOrStdout(), out)
		return err
	}
	if err := os.WriteFile(svg, []byte(out), 0o644); err != nil {
		return fmt.Errorf("--svg: %w", err)
	}
	return nil
}
