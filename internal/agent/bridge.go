package agent

import (
	"context"
	"fmt"

	"weft/internal/kernel"
	"weft/internal/netstate"
)

// meetBridge remembers the Ethernet address of the bridge for pods when it is there already, from an earlier start or because somebody
// else's pods are on it: their neighbour entries for the gateway hold that address, so another one would cut them off.
func (a *agent) meetBridge(ctx context.Context) error {
	host, err := kernel.Open("")
	if err != nil {
		return fmt.Errorf("open the host's network: %w", err)
	}
	defer host.Close()
	l, ok, err := host.Link(ctx, a.cfg.Bridge)
	if err != nil {
		return fmt.Errorf("look for --bridge=%s: %w", a.cfg.Bridge, err)
	}
	if ok && l.Type == netstate.TypeBridge && netstate.HostMAC(l.MAC) {
		a.bridgeMAC = l.MAC
	}
	return nil
}
