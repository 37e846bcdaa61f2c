package ways

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"weft/internal/lease"
	"weft/internal/overlay"
	"weft/internal/overlay/hostgw"
	"weft/internal/overlay/l2"
	"weft/internal/overlay/udp"
	"weft/internal/overlay/vxlan"
	"weft/internal/overlay/wireguard"
)

// backends is every overlay backend by the name it has in the network configuration.
var backends = map[string]overlay.Backend{
	lease.VXLAN:     vxlan.Backend{},
	lease.HostGW:    hostgw.Backend{},
	lease.UDP:       udp.Backend{},
	lease.WireGuard: wireguard.Backend{},
	lease.L2:        l2.Backend{},
}

// Backend returns the backend with the name; the error lists those there are.
func Backend(name string) (overlay.Backend, error) {
	b, ok := backends[name]
	if !ok {
		return nil, fmt.Errorf("network configuration: Backend.Type %q is not supported: use one of %s",
			name, strings.Join(slices.Sorted(maps.Keys(backends)), ", "))
	}
	return b, nil
}
