package cli

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/spf13/cobra"

	"weft/internal/packet"
	"weft/internal/trace"
)

// captureOptions are the flags of "weft capture".
type captureOptions struct {
	iface   string
	count   int
	port    uint16
	host    string
	timeout time.Duration
}

func captureCommand() *cobra.Command {
	var o captureOptions
	c := &cobra.Command{
		Use:     "capture",
		Short:   "print the overlay's packets on the wire, decoded: outer packet, VNI, inner packet",
		Example: `  weft capture -i eth0 -c 4`,
		Args:    cobra.NoArgs,
		RunE:    func(c *cobra.Command, _ []string) error { return o.run(c) },
	}
	c.Flags().StringVarP(&o.iface, "interface", "i", "eth0", "interface to listen on")
	c.Flags().IntVarP(&o.count, "count", "c", 0, "end after this many packets; 0: at ctrl-c or --timeout")
	c.Flags().Uint16Var(&o.port, "port", packet.VXLANPort, "UDP port of the overlay's packets")
	c.Flags().StringVar(&o.host, "host", "", "only inner packets from or to this address")
	c.Flags().DurationVar(&o.timeout, "timeout", 0, "end after this time; 0: never")
	return c
}

func (o captureOptions) run(c *cobra.Command) error {
	var host netip.Addr
	if o.host != "" {
		var err error
		if host, err = netip.ParseAddr(o.host); err != nil {
			return fmt.Errorf("--host=%s: want an address like 172.16.28.5", o.host)
		}
	}
	ctx := c.Context()
	if o.timeout > 0 {
		var stop context.CancelFunc
		ctx, stop = context.WithTimeout(ctx, o.timeout)
		defer stop()
	}
	seen := 0
	err := trace.Capture(ctx, o.iface, func(b []byte) bool {
		f, err := packet.Decode(b, o.port)
		if err != nil || f.Inner == nil || host.IsValid() && !f.Inner.About(host) {
			return true
		}
		fmt.Fprintln(c.OutOrStdout(), f)
		seen++
		return o.count == 0 || seen < o.count
	})
	if errors.Is(err, context.DeadlineExceeded) && o.count > 0 {
		return fmt.Errorf("captured %d of %d packets on %s in %s", seen, o.count, o.iface, o.timeout)
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return nil
	}
	return err
}
