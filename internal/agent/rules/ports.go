package rules

import (
	"hash/fnv"
	"slices"

	"weft/internal/api"
	"weft/internal/proxy"
	"weft/internal/proxy/userspace"
)

// Listener ports are chosen above the default range of outgoing connections (ip_local_port_range, 32768 to 60999), so that
// no connection of the host can have taken one.
const (
	FirstPort = 61000
	portCount = 4500
)

// preferredPorts gives each listener of the services the port that follows from the node's and the service's name: an agent
// that restarts finds the same ports, and a plan can name them without asking the agent. Held ports stay. With more
// services than ports the rest is left to the kernel's choice.
func preferredPorts(n proxy.Node, services []api.ServicePort, held userspace.Ports) userspace.Ports {
	ports := make(userspace.Ports, len(services))
	used := make(map[uint16]bool, len(services))
	var missing []string
	for _, l := range userspace.AllListeners(n, services, nil) {
		if p := held[l.Key()]; p != 0 {
			ports[l.Key()] = p
			used[p] = true
			continue
		}
		missing = append(missing, l.Key())
	}
	slices.Sort(missing)
	for _, key := range missing {
		if len(used) >= portCount {
			break
		}
		h := fnv.New32a()
		_, _ = h.Write([]byte(n.Name + " " + key)) // a hash never fails
		at := h.Sum32() % portCount
		for used[uint16(FirstPort+at)] {
			at = (at + 1) % portCount
		}
		ports[key] = uint16(FirstPort + at)
		used[ports[key]] = true
	}
	return ports
}
