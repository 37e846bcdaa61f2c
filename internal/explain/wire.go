package explain

import (
	"fmt"
	"net/netip"
	"strings"

	"weft/internal/netstate"
	"weft/internal/nft"
	"weft/internal/packet"
)

// transmit puts the packet on device dev of h for the neighbour next.
func (k *walker) transmit(h *Host, dev string, next netip.Addr, p Packet) error {
	if dev == "lo" {
		return k.arrive(h, "lo", p)
	}
	if t, ok := h.tunnel(dev, p.Dst.Addr()); ok {
		return k.relayed(h, t, p)
	}
	l, ok := h.link(dev)
	if !ok {
		return k.segment(h, dev, next, p)
	}
	switch l.Type {
	case netstate.TypeTUN, netstate.TypeWireGuard:
		k.step(h, "tunnel", "ip link: "+l.String(), "no tunnel has "+p.Dst.Addr().String(), p)
		return k.end(h, Dropped)
	case netstate.TypeVXLAN:
		return k.vxlan(h, l, next, p)
	case netstate.TypeBridge:
		return k.bridge(h, l, next, p)
	case netstate.TypeVeth:
		return k.veth(h, l, p)
	}
	return k.segment(h, dev, next, p)
}

// veth crosses to the other end of the pair: a pod named by the peer's network namespace, or the port of a node whose
// peer is this pod.
func (k *walker) veth(h *Host, l netstate.Link, p Packet) error {
	if l.Peer.Netns != "" {
		pod := k.w.podOf(l.Peer.Netns)
		if pod == nil {
			k.step(h, "veth", "ip link: "+l.String(), "no pod at the other end", p)
			return k.end(h, Dropped)
		}
		k.step(h, "veth", "ip link: "+l.String(), "to "+pod.Name, p)
		return k.arrive(pod, l.Peer.Name, p)
	}
	return k.segment(h, l.Name, netip.Addr{}, p)
}

// podOf returns the pod whose network namespace the path names.
func (w World) podOf(netns string) *Host {
	for _, h := range w.Hosts {
		if h.Pod && h.Netns == netns {
			return h
		}
	}
	return nil
}

// bridge finds the port behind which the neighbour is.
func (k *walker) bridge(h *Host, br netstate.Link, next netip.Addr, p Packet) error {
	for _, port := range netstate.Of[netstate.Link](h.State) {
		if port.Master != br.Name || port.Type != netstate.TypeVeth {
			continue
		}
		pod := k.w.podOf(port.Peer.Netns)
		if pod == nil || pod.devOf(next) == "" {
			continue
		}
		k.step(h, "bridge", "ip link: "+port.String(), "port "+port.Name+" to "+pod.Name, p)
		return k.arrive(pod, port.Peer.Name, p)
	}
	k.step(h, "bridge", "ip link: "+br.String(), "no port has "+next.String(), p)
	return k.end(h, Dropped)
}

// vxlan wraps the packet: neighbour entry, FDB entry, and the underlay's route to the remote VTEP.
func (k *walker) vxlan(h *Host, l netstate.Link, next netip.Addr, p Packet) error {
	o, ok := h.State.Get(netstate.ID{Kind: netstate.KindNeigh, Key: netstate.Neigh{Dev: l.Name, IP: next}.Key()})
	neigh, is := o.(netstate.Neigh)
	if !ok || !is {
		k.step(h, "neigh", "", fmt.Sprintf("no neighbour %s on %s", next, l.Name), p)
		return k.end(h, Dropped)
	}
	k.step(h, "neigh", "ip neigh: "+neigh.String(), "inner MAC "+neigh.MAC, p)
	for _, f := range netstate.Of[netstate.FDB](h.State) {
		if f.Dev != l.Name || f.MAC != neigh.MAC {
			continue
		}
		k.step(h, "fdb", "bridge fdb: "+f.String(), "remote VTEP "+f.Dst.String(), p)
		return k.tunnel(h, l, f.Dst, p)
	}
	k.step(h, "fdb", "", fmt.Sprintf("no FDB entry for %s on %s", neigh.MAC, l.Name), p)
	return k.end(h, Dropped)
}

func (k *walker) tunnel(h *Host, l netstate.Link, dst netip.Addr, p Packet) error {
	outer := packet.Flow{Proto: "udp", Src: netip.AddrPortFrom(l.VXLAN.Local, 0), Dst: netip.AddrPortFrom(dst, l.VXLAN.Port)}
	r, text, ok := h.route(dst)
	if !ok {
		k.step(h, "route", "", "no route to the remote VTEP "+dst.String(), p)
		return k.end(h, NoRoute)
	}
	k.step(h, "vxlan", "ip link: "+l.String(), fmt.Sprintf("VNI %d in %s, %s out %s", l.VXLAN.VNI, outer, strings.TrimPrefix(text, "ip route: "), r.Dev), p)
	remote, _ := k.w.owner(dst, true)
	if remote == nil {
		k.step(h, "underlay", "", "no host has "+dst.String(), p)
		return k.end(h, Dropped)
	}
	for _, peer := range netstate.Of[netstate.Link](remote.State) {
		if peer.Type != netstate.TypeVXLAN || peer.VXLAN.VNI != l.VXLAN.VNI || peer.VXLAN.Port != l.VXLAN.Port {
			continue
		}
		if !k.edge(remote, outer, l.VXLAN.VNI, p) {
			return k.end(remote, Dropped)
		}
		k.step(remote, "vxlan", "ip link: "+peer.String(), "unwrapped, in "+peer.Name, p)
		if bridge, ok := remote.link(peer.Master); ok { // backend l2: the frame is switched on
			return k.bridge(remote, bridge, p.Dst.Addr(), p)
		}
		return k.arrive(remote, peer.Name, p)
	}
	k.step(remote, "vxlan", "", fmt.Sprintf("no VXLAN device with VNI %d, port %d", l.VXLAN.VNI, l.VXLAN.Port), p)
	return k.end(remote, Dropped)
}

// edge asks the rules whether the host takes the outer packet.
func (k *walker) edge(h *Host, outer packet.Flow, vni uint32, p Packet) bool {
	in := &Inside{VNI: vni, EtherType: nft.EtherIPv4, Src: p.Src.Addr()}
	if in.Src.Is6() {
		in.EtherType = nft.EtherIPv6
	}
	for _, rules := range h.Rules {
		wrapped := Packet{Flow: outer, Inside: in}
		for _, o := range append(rules.Eval(Prerouting, wrapped), rules.Eval(Input, wrapped)...) {
			switch o.Action {
			case Accept:
				k.step(h, "edge", o.Rule, "taken", p)
			case Drop, Reject:
				k.step(h, "edge", o.Rule, fmt.Sprintf("refused: %s, inside %s", outer.Src.Addr(), in.Src), p)
				return false
			}
		}
	}
	return true
}

// segment delivers over a common wire: whoever has the address. From a pod without a described device that is its node.
func (k *walker) segment(h *Host, dev string, next netip.Addr, p Packet) error {
	if h.Pod {
		return k.fromPod(h, dev, p)
	}
	remote, in := k.w.owner(next, true)
	if remote == nil || remote == h {
		k.step(h, "underlay", "", fmt.Sprintf("out %s to %s, which is no node", dev, next), p)
		return k.end(h, Left)
	}
	k.step(h, "underlay", "", fmt.Sprintf("%s to %s", dev, remote.Name), p)
	return k.arrive(remote, in, p)
}

// fromPod crosses the pod's veth to its node, to the bridge when the node's end is a port of one.
func (k *walker) fromPod(h *Host, dev string, p Packet) error {
	for _, node := range k.w.Hosts {
		if node.Pod {
			continue
		}
		for _, port := range netstate.Of[netstate.Link](node.State) {
			if port.Type != netstate.TypeVeth || port.Peer.Name != dev || k.w.podOf(port.Peer.Netns) != h {
				continue
			}
			in := port.Name
			if port.Master != "" {
				in = port.Master
			}
			if pod := k.sameBridge(node, port, p.Dst.Addr()); pod != nil {
				k.step(node, "bridge", "ip link: "+port.String(), "switched to "+pod.Name, p)
				return k.arrive(pod, port.Peer.Name, p)
			}
			k.step(node, "veth", "ip link: "+port.String(), "in "+in, p)
			if vtep, ok := node.vtepOf(port.Master); ok {
				return k.switched(node, vtep, p)
			}
			return k.arrive(node, in, p)
		}
	}
	k.step(h, "veth", "", "no node holds the other end of "+dev, p)
	return k.end(h, Dropped)
}

// sameBridge returns the pod on the same bridge that has the address: the frame is switched, not routed.
func (k *walker) sameBridge(node *Host, from netstate.Link, dst netip.Addr) *Host {
	if from.Master == "" {
		return nil
	}
	for _, port := range netstate.Of[netstate.Link](node.State) {
		if port.Master != from.Master || port.Name == from.Name || port.Type != netstate.TypeVeth {
			continue
		}
		if pod := k.w.podOf(port.Peer.Netns); pod != nil && pod.devOf(dst) != "" {
			return pod
		}
	}
	return nil
}

// tunnel returns the user-space tunnel of the device that leads to the address, by the longest subnet.
func (h *Host) tunnel(dev string, dst netip.Addr) (best netstate.Tunnel, ok bool) {
	for _, t := range netstate.Of[netstate.Tunnel](h.State) {
		if t.Dev == dev && t.Subnet.Contains(dst) && (!ok || t.Subnet.Bits() > best.Subnet.Bits()) {
			best, ok = t, true
		}
	}
	return best, ok
}

// relayed carries the packet over a tunnel of backend udp or wireguard; the far end takes it only from inside its sender's subnet.
func (k *walker) relayed(h *Host, t netstate.Tunnel, p Packet) error {
	k.step(h, "tunnel", "tunnel: "+t.String(), "to "+t.Remote.String(), p)
	remote, _ := k.w.owner(t.Remote.Addr(), true)
	if remote == nil {
		k.step(h, "underlay", "", "no host has "+t.Remote.Addr().String(), p)
		return k.end(h, Dropped)
	}
	back, ok := remote.tunnel(t.Dev, p.Src.Addr())
	if !ok || h.devOf(back.Remote.Addr()) == "" {
		k.step(remote, "tunnel", "", fmt.Sprintf("refused: %s is in no subnet of %s", p.Src.Addr(), h.Name), p)
		return k.end(remote, Dropped)
	}
	k.step(remote, "tunnel", "tunnel: "+back.String(), "unwrapped, in "+t.Dev, p)
	return k.arrive(remote, t.Dev, p)
}

// vtepOf returns the VXLAN device that is a port of the bridge (backend l2).
func (h *Host) vtepOf(bridge string) (netstate.Link, bool) {
	for _, l := range netstate.Of[netstate.Link](h.State) {
		if bridge != "" && l.Type == netstate.TypeVXLAN && l.Master == bridge {
			return l, true
		}
	}
	return netstate.Link{}, false
}

// switched sends a frame out of the bridge's VXLAN port, by the FDB entry of the pod that has the address.
func (k *walker) switched(node *Host, vtep netstate.Link, p Packet) error {
	pod, dev := k.w.podWith(p.Dst.Addr())
	if pod == nil {
		k.step(node, "bridge", "ip link: "+vtep.String(), "no pod has "+p.Dst.Addr().String(), p)
		return k.end(node, Dropped)
	}
	nic, _ := pod.link(dev)
	for _, f := range netstate.Of[netstate.FDB](node.State) {
		if f.Dev == vtep.Name && f.MAC == nic.MAC {
			k.step(node, "fdb", "bridge fdb: "+f.String(), "remote VTEP "+f.Dst.String(), p)
			return k.tunnel(node, vtep, f.Dst, p)
		}
	}
	k.step(node, "fdb", "", fmt.Sprintf("no FDB entry for %s on %s", nic.MAC, vtep.Name), p)
	return k.end(node, Dropped)
}

// podWith returns the pod that has the address, and the device it is on.
func (w World) podWith(ip netip.Addr) (*Host, string) {
	for _, h := range w.Hosts {
		if dev := h.devOf(ip); h.Pod && dev != "" {
			return h, dev
		}
	}
	return nil, ""
}
