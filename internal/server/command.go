package server

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	kubeversion "k8s.io/component-base/version"

	"weft/internal/server/pki"
)

// Command returns the program: the server itself, and what an operator needs beside it.
func Command() *cobra.Command {
	o := NewOptions()
	cmd := &cobra.Command{
		Use:   "weft-server",
		Short: "Kubernetes API, controllers and scheduler in one process",
		Long: "weft-server runs the Kubernetes API with its controllers and scheduler, on an embedded etcd or on one you have.\n" +
			"Flags of kube-apiserver mean the same here; --help-all lists them all.",
		SilenceUsage: true, SilenceErrors: true,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return fmt.Errorf("unexpected argument %q (see %s --help)", args[0], cmd.CommandPath())
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			if all, err := cmd.Flags().GetBool("help-all"); err != nil || all {
				cmd.Flags().VisitAll(func(f *pflag.Flag) { f.Hidden = f.Usage == "retired" })
				return errors.Join(err, cmd.Help())
			}
			return Run(cmd.Context(), o, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	o.AddFlags(cmd.Flags())
	cmd.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return fmt.Errorf("%w (see %s --help)", err, cmd.CommandPath())
	})
	cmd.CompletionOptions.DisableDefaultCmd = true
	cmd.AddCommand(kubeconfigCommand(), versionCommand())
	return cmd
}

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the versions of weft-server and of the Kubernetes API", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "weft-server %s, Kubernetes %s\n", Version, kubeversion.Get().GitVersion)
			return err
		},
	}
}

func kubeconfigCommand() *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use: "node-kubeconfig NAME", Short: "Print the kubeconfig of a node, made when it has none yet",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			data, err := nodeKubeconfig(dir, args[0])
			if err != nil {
				return err
			}
			_, err = cmd.OutOrStdout().Write(data)
			return err
		},
	}
	cmd.Flags().StringVar(&dir, "data-dir", NewOptions().DataDir, "The server's --data-dir.")
	return cmd
}

// nodeKubeconfig reads or makes the kubeconfig of a node; the server need not run.
func nodeKubeconfig(dir, node string) ([]byte, error) {
	if err := checkNodeName(node); err != nil {
		return nil, err
	}
	d := &dataDir{path: dir}
	cluster, err := pki.ReadCluster(d.adminKubeconfig())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("--data-dir %s: no admin.kubeconfig there: start weft-server on it once", dir)
	}
	if err != nil {
		return nil, fmt.Errorf("--data-dir: %w", hint(err))
	}
	authority, err := pki.Open(d.pki())
	if err != nil {
		return nil, fmt.Errorf("--data-dir: %w", hint(err))
	}
	file, err := authority.NodeKubeconfig(d.nodes(), node, cluster)
	if err != nil {
		return nil, err
	}
	return os.ReadFile(filepath.Clean(file))
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

func addrOf(ip net.IP) (netip.Addr, bool) {
	addr, ok := netip.AddrFromSlice(ip)
	return addr.Unmap(), ok
}
