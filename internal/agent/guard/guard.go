// Package guard plans the part of table inet weft that is there in every proxy mode: which packets of other nodes are taken, what is kept from
// connection tracking, and what may leave in clear. What was planned before lingers, while packets may be under way by it.
//
// Floor 4, programs.
package guard

import (
	"cmp"
	"net/netip"
	"slices"

	"weft/internal/agent/facts"
	"weft/internal/agent/ways"
	"weft/internal/api"
	"weft/internal/lease"
	"weft/internal/overlay"
	"weft/internal/overlay/edge"
	"weft/internal/overlay/l2"
	"weft/internal/overlay/udp"
	"weft/internal/overlay/vxlan"
	"weft/internal/overlay/wireguard"
)

// Guard is the part of table inet weft that is there in every proxy mode: outer packets untracked, the edge check, the seal.
type Guard struct {
	Config  edge.Config
	Members Members
	own     []edge.Member // what the node is to the others: its form is looked for before there is a peer of it
	refused int           // leases that are no peers
}

// Plan plans for the ways in use: a host that announces none of them any more may still send by it.
func Plan(f facts.Facts, used []ways.Way, own api.Lease, leases []api.Lease) Guard {
	g := Guard{Config: edge.Config{
		Check: f.EdgeCheck, V4: own.Subnet.IsValid(), V6: own.SubnetV6.IsValid(), Seal: SealOf(f),
	}}
	var l2VNIs []uint32
	for _, w := range used {
		ports, vni := outerPorts(w)
		g.Config.Untracked = append(g.Config.Untracked, ports...)
		if vni != 0 {
			g.Config.Segments = append(g.Config.Segments, edge.Segment{Port: ports[0], VNI: vni})
		}
		if w.Backend.Name() == l2.Name {
			l2VNIs = append(l2VNIs, vni)
		}
	}
	var all []edge.Member
	if f.EdgeCheck && len(g.Config.Segments) > 0 {
		peers, refused := overlay.Peers(f.Self(own), leases)
		g.refused = len(refused)
		all = members(g.Config.Segments, l2VNIs, peers)
		g.own = members(g.Config.Segments, l2VNIs, []api.Lease{own})
	}
	slices.SortFunc(all, compareMembers)
	return g.of(slices.Compact(all))
}

// outerPorts are the UDP ports of the way's outer packets, and the VNI of VXLAN.
func outerPorts(w ways.Way) (ports []uint16, vni uint32) {
	o := w.Self.Options
	switch w.Backend.Name() {
	case lease.VXLAN, lease.L2:
		return []uint16{cmp.Or(o.Port, vxlan.DefaultPort)}, cmp.Or(o.VNI, vxlan.DefaultVNI)
	case lease.UDP:
		return []uint16{cmp.Or(o.Port, udp.DefaultPort)}, 0
	case lease.WireGuard:
		v4, v6 := wireguard.Ports(o)
		return []uint16{v4, v6}, 0
	}
	return nil, 0
}

// members are the peers' subnets as they may be inside packets: VXLAN carries IPv4 pods over IPv4 and IPv6 pods over IPv6, l2 both
// over IPv4. A host sends by what the receiver announces, so every peer is a member of every segment.
func members(segments []edge.Segment, l2VNIs []uint32, peers []api.Lease) []edge.Member {
	out := make([]edge.Member, 0, len(segments)*len(peers))
	add := func(vni uint32, outer netip.Addr, subnet netip.Prefix) {
		if outer.IsValid() && !outer.IsUnspecified() && subnet.IsValid() {
			out = append(out, edge.Member{VNI: vni, Outer: outer.Unmap(), Subnet: subnet.Masked()})
		}
	}
	for _, s := range segments {
		for _, l := range peers {
			add(s.VNI, l.PublicIP, l.Subnet)
			if slices.Contains(l2VNIs, s.VNI) {
				add(s.VNI, l.PublicIP, l.SubnetV6)
			} else {
				add(s.VNI, l.PublicIPv6, l.SubnetV6)
			}
		}
	}
	return out
}

// of is the guard, in canonical form, with the members, which are sorted.
func (g Guard) of(all []edge.Member) Guard {
	slices.Sort(g.Config.Untracked)
	g.Config.Untracked = slices.Compact(g.Config.Untracked)
	slices.SortFunc(g.Config.Segments, func(a, b edge.Segment) int { return cmp.Or(cmp.Compare(a.Port, b.Port), cmp.Compare(a.VNI, b.VNI)) })
	g.Config.Segments = slices.Compact(g.Config.Segments)
	g.Members = listOf(all)
	g.Config.Shapes = edge.ShapesOf(slices.Concat(all, g.own))
	return g
}

func compareMembers(a, b edge.Member) int {
	return cmp.Or(a.Subnet.Addr().Compare(b.Subnet.Addr()), cmp.Compare(a.Subnet.Bits(), b.Subnet.Bits()), a.Outer.Compare(b.Outer),
		cmp.Compare(a.VNI, b.VNI))
}

// localDevices are those by which a host reaches its own pods, whoever attached them: veth pairs, and the bridges of weft, of the CNI
// and of Docker.
var localDevices = []string{"lo", "veth*", "cni0", "docker0"}

// SealOf is in force as long as the network's configuration asks for encryption, whatever the state of its devices.
func SealOf(f facts.Facts) edge.Seal {
	if !f.Sealed() || f.Turning {
		return edge.Seal{}
	}
	s := edge.Seal{Devices: slices.Concat([]string{wireguard.Device, wireguard.DeviceV6, wireguard.StandIn + "*"}, localDevices)}
	if f.Bridge != "" && !slices.Contains(s.Devices, f.Bridge) {
		s.Devices = append(s.Devices, f.Bridge)
	}
	for _, n := range f.PodNetworks() {
		// Where the pod network is part of a network of hosts, the two can't be told apart: see facts.PodNetworks.
		if !slices.ContainsFunc(f.Connected, n.Overlaps) {
			s.Networks = append(s.Networks, n)
		}
	}
	return s
}
