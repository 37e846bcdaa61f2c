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
	var force, dryRun bool
	var timeout time.Duration
	c := &cobra.Command{
		Use:   "apply -f FILE",
		Short: "check a net-conf.json and put it in force",
		Long: `Checks a network configuration and writes it. It is refused when a host holds a subnet that does not fit it: with
--force such hosts lease another one, and their pods get new addresses.

Where the backend changes (another type, VNI or VXLAN port), all hosts first get ready to receive by the new one, then send by it, then
close the old one, so that no packet is lost and none leaves in clear once wireguard is in force. Hosts that do not follow are named, and
nothing is put in force without them unless --force says so. Run it again to continue a change that was interrupted; apply the old
configuration to go back.`,
		Example: `  weft network apply -f net-conf.json --etcd-endpoints=http://kube-master:2379
  echo '{"Network": "172.16.0.0/12", "Backend": {"Type": "vxlan"}}' | weft network apply -f -`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			data, err := read(file, c.InOrStdin())
			if err != nil {
				return err
			}
			config, warnings, err := lease.ParseConfig(data)
			if err == nil {
				err = config.Supported()
			}
			if err != nil {
				return fmt.Errorf("%s: %w", file, err) // before etcd is asked anything
			}
			if timeout < 0 {
				return fmt.Errorf("--timeout=%s: write a time that is not negative", timeout)
			}
			for _, w := range warnings {
				fmt.Fprintf(c.ErrOrStderr(), "warning: %s\n", w)
			}
			work := &change{data: data, want: config, force: force, dryRun: dryRun, timeout: timeout, say: c.ErrOrStderr()}
			return o.with(c, work.report(c.OutOrStdout()))
		},
	}
	c.Flags().StringVarP(&file, "filename", "f", "", `file with the configuration, "-" for standard input`)
	c.Flags().BoolVar(&force, "force", false, "also when hosts have to move to other subnets, or do not take part in a change of the backend within --timeout")
	c.Flags().BoolVar(&dryRun, "dry-run", false, "check, and say what would be done")
	c.Flags().DurationVar(&timeout, "timeout", time.Minute, "how long hosts are waited for in each phase of a change of the backend")
	_ = c.MarkFlagRequired("filename") // fails only for a flag that does not exist
	return c
}

// report runs the change and says what it did: the result on stdout, what may not be meant on stderr.
func (c *change) report(out io.Writer) func(context.Context, *etcd.Client) error {
	changed := false
	return func(ctx context.Context, client *etcd.Client) error {
		c.client = client
		before, err := client.List(ctx)
		if err != nil {
			return err
		}
		done, err := c.run(ctx)
		changed = changed || done
		if err != nil || c.dryRun {
			return err
		}
		for _, m := range etcd.Misfits(c.want, before) {
			fmt.Fprintf(c.say, "warning: the host of lease %s will move\n", m)
		}
		word := "unchanged"
		if changed {
			word = "configured"
		}
		_, err = fmt.Fprintf(out, "%s %s\n", client.ConfigName(), word)
		return err
	}
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
