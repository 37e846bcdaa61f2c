// Package network holds the commands that read and write the configuration of the whole network in etcd.
//
// Floor 4, programs.
package network

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"weft/internal/lease"
	"weft/internal/store/etcd"
)

// options are the flags both commands take.
type options struct {
	store etcd.Config
	wait  time.Duration
}

// Command returns "weft network" with its subcommands.
func Command() *cobra.Command {
	var o options
	c := &cobra.Command{
		Use:   "network",
		Short: "read and write the network configuration in etcd",
		Long: `The network configuration says which addresses the pods of the whole cluster get and how packets travel between
hosts. It lies in etcd where flannel looks for it too: <prefix>/config.`,
		Args: cobra.NoArgs,
	}
	f := c.PersistentFlags()
	f.StringSliceVar(&o.store.Endpoints, "etcd-endpoints", []string{"http://127.0.0.1:2379"}, "URLs of the etcd members")
	f.StringVar(&o.store.Prefix, "etcd-prefix", etcd.DefaultPrefix, "prefix of all keys")
	f.StringVar(&o.store.CAFile, "etcd-cafile", "", "PEM file of the authority that signed etcd's certificate")
	f.StringVar(&o.store.CertFile, "etcd-certfile", "", "PEM file of the client certificate")
	f.StringVar(&o.store.KeyFile, "etcd-keyfile", "", "PEM file of the client certificate's key")
	f.StringVar(&o.store.Username, "etcd-username", "", "etcd user")
	f.StringVar(&o.store.Password, "etcd-password", "", "etcd user's password")
	f.DurationVar(&o.wait, "wait", 0, "how long to wait for an etcd that does not answer yet")
	c.AddCommand(applyCommand(&o), showCommand(&o), leasesCommand(&o), reserveCommand(&o), releaseCommand(&o))
	return c
}

func applyCommand(o *options) *cobra.Command {
	var file string
	var force bool
	c := &cobra.Command{
		Use:   "apply -f FILE",
		Short: "check a net-conf.json and put it in force",
		Long: `Checks a network configuration and writes it. It is refused when a host holds a subnet that does not fit it: with
--force such hosts lease another one, and their pods get new addresses.`,
		Example: `  weft network apply -f net-conf.json --etcd-endpoints=http://kube-master:2379
  echo '{"Network": "172.16.0.0/12", "Backend": {"Type": "vxlan"}}' | weft network apply -f -`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			data, err := read(file, c.InOrStdin())
			if err != nil {
				return err
			}
			if _, _, err := lease.ParseConfig(data); err != nil {
				return fmt.Errorf("%s: %w", file, err) // before etcd is asked anything
			}
			return o.with(c, func(ctx context.Context, client *etcd.Client) error {
				done, err := client.PutConfig(ctx, data, force)
				if err != nil {
					return err
				}
				return report(c, done)
			})
		},
	}
	c.Flags().StringVarP(&file, "filename", "f", "", `file with the configuration, "-" for standard input`)
	c.Flags().BoolVar(&force, "force", false, "also when hosts have to move to other subnets")
	_ = c.MarkFlagRequired("filename") // fails only for a flag that does not exist
	return c
}

// report says what apply did: the result on stdout, what may not be meant on stderr.
func report(c *cobra.Command, done etcd.Applied) error {
	for _, w := range done.Warnings {
		fmt.Fprintf(c.ErrOrStderr(), "warning: %s\n", w)
	}
	for _, m := range done.Moving {
		fmt.Fprintf(c.ErrOrStderr(), "warning: the host of lease %s will move\n", m)
	}
	word := "unchanged"
	if done.Changed {
		word = "configured"
	}
	_, err := fmt.Fprintf(c.OutOrStdout(), "%s %s\n", done.Key, word)
	return err
}

// maxConfig bounds the configuration file: etcd takes 1.5 MiB in one request.
const maxConfig = 1 << 20

func read(file string, stdin io.Reader) ([]byte, error) {
	in := stdin
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return nil, fmt.Errorf("--filename: %w", err)
		}
		defer f.Close()
		in = f
	}
	data, err := io.ReadAll(io.LimitReader(in, maxConfig+1))
	if err != nil {
		return nil, fmt.Errorf("--filename: read %s: %w", file, err)
	}
	if len(data) > maxConfig {
		return nil, fmt.Errorf("--filename: %s is larger than %d bytes: that is no network configuration", file, maxConfig)
	}
	return data, nil
}

// with runs f with a client. While etcd does not answer it is tried again until --wait is over.
func (o *options) with(c *cobra.Command, f func(context.Context, *etcd.Client) error) error {
	client, err := etcd.Open(o.store)
	if err != nil {
		return err
	}
	defer client.Close()
	deadline := time.Now().Add(o.wait)
	for {
		err := f(c.Context(), client)
		if err == nil || !errors.Is(err, etcd.ErrNoAnswer) || time.Now().After(deadline) {
			return err
		}
		timer := time.NewTimer(min(500*time.Millisecond, time.Until(deadline)))
		select {
		case <-c.Context().Done():
			timer.Stop()
			return c.Context().Err()
		case <-timer.C:
		}
	}
}
