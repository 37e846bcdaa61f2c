// Package l2 plans the overlay of Docker's overlay networks: all pods are in one Ethernet segment, a VXLAN device is a port of each host's
// bridge, and the hosts themselves have no address in it. Where every pod is comes from the store, so that frames and ARP requests
// need neither be flooded nor learned.
//
// Floor 2, planners.
package l2

import (
	"cmp"
	"fmt"
	"net/netip"

	"weft/internal/api"
	"weft/internal/netstate"
	"weft/internal/overlay"
)

// Name is the BackendType of the leases.
const Name = "l2"

// Defaults when the options name none.
const (
	DefaultVNI  = 1
	DefaultPort = 8472
)

// overhead is outer IPv4, UDP, VXLAN and inner Ethernet header in bytes.
const overhead = 20 + 8 + 8 + 14

// Endpoint is an address of a pod on any host.
type Endpoint struct {
	IP   netip.Addr
	MAC  string
	Node string // lease holder's node name
}

// Backend plans the bridged overlay.
type Backend struct {
	Bridge    string // the bridge that the pods are ports of, planned by attach in mode l2
	Endpoints []Endpoint
}

// Name returns "l2".
func (Backend) Name() string { return Name }

// Overhead is 50 bytes.
func (Backend) Overhead(overlay.Self) int { return overhead }

// Device is the name of the VXLAN device, "weftl2.<VNI>".
func Device(o overlay.Options) string { return fmt.Sprintf("weftl2.%d", cmp.Or(o.VNI, DefaultVNI)) }

// Unreached says why a peer's lease, good in itself, gets no path; "" when it gets one.
func (Backend) Unreached(_ overlay.Self, l api.Lease) string {
	if l.PublicIP.IsValid() && !l.PublicIP.IsUnspecified() {
		return ""
	}
	return "PublicIP: missing, and backend l2 sends over IPv4: give that host an IPv4 address"
}

// Plan returns the VXLAN device and, for each endpoint on a peer, the entry that sends its frames there and the one from which ARP requests
// and neighbour solicitations for it are answered on this host (ip-link(8), "proxy"). Endpoints on nodes without a lease are left out.
func (b Backend) Plan(self overlay.Self, leases []api.Lease) netstate.State {
	vni := cmp.Or(self.Options.VNI, DefaultVNI)
	dev := Device(self.Options)
	s := netstate.New(netstate.Link{
		Name: dev, Type: netstate.TypeVXLAN, MTU: self.OuterMTU() - overhead, MAC: self.Lease.VTEPMAC, Master: b.Bridge, Up: true,
		Alias: netstate.AliasPrefix + "l2",
		VXLAN: netstate.VXLAN{VNI: vni, Local: self.Addr, Dev: self.Dev, Port: cmp.Or(self.Options.Port, DefaultPort), Proxy: true},
	})
	at := map[string]netip.Addr{}
	peers, _ := overlay.Peers(self, leases)
	for _, l := range peers {
		if l.BackendType == Name && l.VNI == vni && l.Node != "" && l.PublicIP.IsValid() && !l.PublicIP.IsUnspecified() {
			at[l.Node] = l.PublicIP
		}
	}
	for _, e := range b.Endpoints {
		host, ok := at[e.Node]
		if !ok || !e.IP.IsValid() || !netstate.HostMAC(e.MAC) {
			continue
		}
		s.Add(netstate.Neigh{Dev: dev, IP: e.IP, MAC: e.MAC}, netstate.FDB{Dev: dev, MAC: e.MAC, Dst: host})
	}
	return s
}
