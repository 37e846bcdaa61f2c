package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"weft/internal/lab/topology"
)

// exitStatus is the exit code of a command on a host, which the lab's own command passes on. The command has said what was wrong.
type exitStatus int

// Error implements error.
func (e exitStatus) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

// ExitStatus is the code to exit with when err is that of a command on a lab's host, which has said itself what was wrong.
func ExitStatus(err error) (code int, ok bool) {
	if e, ok := errors.AsType[exitStatus](err); ok {
		return int(e), true
	}
	return 0, false
}

// Command is "weft lab".
func Command() *cobra.Command {
	c := &cobra.Command{
		Use:   "lab",
		Short: "a cluster of several hosts on this machine",
		Long: `A lab is a cluster of several hosts on this machine: each host is a set of namespaces with the real programs in it,
joined by a switch that is in namespaces too. It works as root and as an ordinary user; the machine's own network is not touched.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	name := c.PersistentFlags().String("name", DefaultName, "name of the lab: several can run side by side")
	c.AddCommand(upCommand(name), downCommand(name), execCommand(name), shellCommand(name), kubectlCommand(name), statusCommand(name),
		listCommand(), startCommand(name), stopCommand(name), restartCommand(name), killCommand(name))
	return c
}

func upCommand(name *string) *cobra.Command {
	var file string
	o := Options{}
	c := &cobra.Command{
		Use:   "up",
		Short: "make the hosts, start the programs and wait until all is ready",
		Long: `Makes the hosts, starts weft-server on the master and "weft agent" on every node, and waits until the API is ready, all nodes
are Ready and all subnets are leased. Without -f the hosts are kube-master, kube-node1 and kube-node2.`,
		Example: `  weft lab up
  weft lab up --name big -f topology.yaml

topology.yaml, every field of it optional:
  underlay: {subnet: 172.17.0.0/16, gateway: 172.17.42.1, mtu: 1500}
  nodes: 2                     # or the hosts one by one:
  hosts:
  - {name: kube-master, address: 172.17.42.30, role: master}
  - {name: kube-node1, address: 172.17.42.31, role: node, subnet: 172.16.28.0/24}
  cluster:
    network: 172.16.0.0/12
    serviceRange: 10.254.0.0/16
    backend: {type: vxlan}     # vxlan, host-gw, udp, wireguard, l2
    proxyMode: nftables        # nftables, iptables, userspace
    attach: routed             # routed, bridge
    bridge: cni0
    leaseStore: etcd           # etcd, kube
    securePort: 443`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			t, err := ReadTopology(file)
			if err != nil {
				return err
			}
			o.Name, o.Progress = *name, c.OutOrStdout()
			l, err := Up(c.Context(), t, o)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(c.OutOrStdout(), "lab %s is up. Look at it with: weft lab status%s\n", l.Name(), nameFlag(l.Name()))
			return err
		},
	}
	f := c.Flags()
	f.StringVarP(&file, "file", "f", "", "topology (YAML); - reads standard input")
	f.BoolVar(&o.HostsOnly, "hosts-only", false, "start no programs")
	f.BoolVar(&o.Keep, "keep", false, "keep a lab whose programs fail to start, to look at it")
	f.DurationVar(&o.Timeout, "timeout", time.Minute, "how long all of it may take")
	return c
}

// maxFile bounds what is read of a topology file; Parse refuses less.
const maxFile = 2 << 20

// ReadTopology reads a topology file: "" is the default topology, "-" standard input.
func ReadTopology(file string) (topology.Topology, error) {
	if file == "" {
		return topology.Default(), nil
	}
	in := os.Stdin
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return topology.Topology{}, fmt.Errorf("open topology: %w", err)
		}
		defer f.Close()
		in = f
	}
	data, err := io.ReadAll(io.LimitReader(in, maxFile))
	if err != nil {
		return topology.Topology{}, fmt.Errorf("read topology: %w", err)
	}
	t, err := topology.Parse(data)
	if err != nil {
		return topology.Topology{}, fmt.Errorf("%s: %w", file, err)
	}
	return t, nil
}

func downCommand(name *string) *cobra.Command {
	return &cobra.Command{
		Use:   "down",
		Short: "end the lab and remove its files, also what a crashed one left",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			was, err := Down(*name)
			if err == nil && !was {
				fmt.Fprintf(c.OutOrStdout(), "lab %s is not up\n", *name)
			}
			return err
		},
	}
}

func execCommand(name *string) *cobra.Command {
	c := &cobra.Command{
		Use:     "exec HOST -- COMMAND...",
		Short:   "run a command on a host and pass on its exit code",
		Example: "  weft lab exec kube-node1 -- ip route",
		Args:    cobra.MinimumNArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			return onHost(c, *name, func(ctx context.Context, l *Lab, s Stdio, tty bool) error {
				if args[1] == "--" {
					args = slices.Delete(args, 1, 2)
				}
				return l.enter(ctx, args[0], s, tty, args[1:])
			})
		},
	}
	c.Flags().SetInterspersed(false)
	return c
}

func shellCommand(name *string) *cobra.Command {
	return &cobra.Command{
		Use:   "sh HOST",
		Short: "a shell on a host",
		Args:  cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			const shell = `cd; if command -v bash >/dev/null; then exec bash; else exec sh; fi`
			return onHost(c, *name, func(ctx context.Context, l *Lab, s Stdio, tty bool) error {
				return l.enter(ctx, args[0], s, tty, []string{"sh", "-c", shell})
			})
		},
	}
}

func kubectlCommand(name *string) *cobra.Command {
	var hostName string
	c := &cobra.Command{
		Use:   "kubectl [--host HOST] ARGS...",
		Short: "the real kubectl as the admin, in a host's network and with this machine's files",
		Example: `  weft lab kubectl get nodes -o wide
  weft lab kubectl --host kube-node2 create -f replication.yml`,
		RunE: func(c *cobra.Command, args []string) error {
			return onHost(c, *name, func(ctx context.Context, l *Lab, s Stdio, tty bool) error {
				on := hostName
				if on == "" {
					var err error
					if on, err = l.master(); err != nil {
						return err
					}
				}
				return l.kubectlHere(ctx, on, s, tty, args)
			})
		},
	}
	c.Flags().StringVar(&hostName, "host", "", "host whose view of the network to take (default the master)")
	c.Flags().SetInterspersed(false)
	return c
}

// onHost runs f in the lab with the command's inputs and outputs and makes an ExecError the exit code.
func onHost(c *cobra.Command, name string, f func(context.Context, *Lab, Stdio, bool) error) error {
	l, err := Open(name)
	if err != nil {
		return err
	}
	ctx, tty := c.Context(), false
	if in, ok := c.InOrStdin().(*os.File); ok {
		_, err := unix.IoctlGetTermios(int(in.Fd()), unix.TCGETS)
		tty = err == nil
	}
	if tty {
		ctx = context.WithoutCancel(ctx) // ^C is for the command on the terminal
	}
	err = f(ctx, l, Stdio{c.InOrStdin(), c.OutOrStdout(), c.ErrOrStderr()}, tty)
	if e, ok := errors.AsType[*ExecError](err); ok {
		return exitStatus(e.Code)
	}
	return err
}

func startCommand(name *string) *cobra.Command {
	return programCommand(name, "start HOST PROGRAM", "start a program that has ended, and wait until it is ready", cobra.ExactArgs(2),
		func(ctx context.Context, l *Lab, host, program string, _ []string) error {
			if err := l.Start(ctx, host, program); err != nil {
				return err
			}
			return l.WaitReady(ctx, host, program)
		})
}

func stopCommand(name *string) *cobra.Command {
	return programCommand(name, "stop HOST PROGRAM", "stop a program: SIGTERM, SIGKILL after five seconds", cobra.ExactArgs(2),
		func(ctx context.Context, l *Lab, host, program string, _ []string) error {
			return l.Stop(ctx, host, program)
		})
}

func restartCommand(name *string) *cobra.Command {
	return programCommand(name, "restart HOST PROGRAM [-- --FLAG=VALUE...]", "stop and start a program, with other flags if given", cobra.MinimumNArgs(2),
		func(ctx context.Context, l *Lab, host, program string, flags []string) error {
			return l.Restart(ctx, host, program, flags...)
		})
}

func killCommand(name *string) *cobra.Command {
	var signal string
	c := programCommand(name, "kill HOST PROGRAM", "send a program a signal, SIGKILL unless -s says otherwise", cobra.ExactArgs(2),
		func(ctx context.Context, l *Lab, host, program string, _ []string) error {
			sig, err := parseSignal(signal)
			if err != nil {
				return err
			}
			return l.Signal(ctx, host, program, sig)
		})
	c.Flags().StringVarP(&signal, "signal", "s", "KILL", "signal to send, by name")
	return c
}

func parseSignal(name string) (syscall.Signal, error) {
	sig := unix.SignalNum("SIG" + strings.TrimPrefix(strings.ToUpper(name), "SIG"))
	if sig == 0 {
		return 0, fmt.Errorf("--signal=%s: unknown: want a name such as TERM, KILL, STOP, CONT", name)
	}
	return sig, nil
}

// programLimit bounds commands that wait for a program.
const programLimit = 30 * time.Second

// programCommand makes a command with the arguments HOST PROGRAM and, if args allows them, more.
func programCommand(name *string, use, short string, args cobra.PositionalArgs,
	f func(ctx context.Context, l *Lab, host, program string, more []string) error,
) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, Args: args,
		RunE: func(c *cobra.Command, args []string) error {
			l, err := Open(*name)
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeoutCause(c.Context(), programLimit, errTimeout)
			defer cancel()
			return f(ctx, l, args[0], args[1], args[2:])
		},
	}
}
