package packet

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"strings"
)

// VXLANPort is the UDP port of VXLAN packets on Linux and with flannel (the IANA's is 4789).
const VXLANPort = 8472

// ErrShort says that a packet ends within a header.
var ErrShort = errors.New("packet ends within a header")

// Frame is a decoded Ethernet frame: the headers that decide where it goes, and for a VXLAN packet the frame inside.
type Frame struct {
	SrcMAC, DstMAC [6]byte
	EtherType      uint16
	IP             *IP
	ARP            *ARP
	VNI            uint32 // of Inner, 24 bits
	Inner          *Frame
}

// IP is an IPv4 or IPv6 header and the beginning of what it carries.
type IP struct {
	Flow
	TTL    uint8
	Length int    // bytes, header and all
	Flags  string // TCP flags as tcpdump(8) writes them: "S", "S.", "P.", "F.", "R"
	Info   string // ICMP: what it says
}

// ARP is an ARP packet for IPv4 over Ethernet (RFC 826).
type ARP struct {
	Reply    bool
	From, To netip.Addr
	FromMAC  [6]byte
}

// Decode reads an Ethernet frame; UDP packets to vxlanPort are unwrapped once. A frame of a kind it does not know is
// no error: its EtherType says what it is.
func Decode(b []byte, vxlanPort uint16) (Frame, error) { return decode(b, vxlanPort, true) }

func decode(b []byte, vxlanPort uint16, outer bool) (Frame, error) {
	if len(b) < 14 {
		return Frame{}, fmt.Errorf("ethernet: %w", ErrShort)
	}
	f := Frame{DstMAC: [6]byte(b[0:6]), SrcMAC: [6]byte(b[6:12]), EtherType: binary.BigEndian.Uint16(b[12:14])}
	body := b[14:]
	var err error
	switch f.EtherType {
	case 0x0800:
		f.IP, body, err = decodeIPv4(body)
	case 0x86dd:
		f.IP, body, err = decodeIPv6(body)
	case 0x0806:
		f.ARP, err = decodeARP(body)
		return f, err
	default:
		return f, nil
	}
	if err != nil || f.IP.Proto != "udp" || f.IP.Dst.Port() != vxlanPort || !outer {
		return f, err
	}
	return f, f.unwrap(body, vxlanPort)
}

// unwrap reads the VXLAN header (RFC 7348, 5) after the UDP header.
func (f *Frame) unwrap(udp []byte, vxlanPort uint16) error {
	if len(udp) < 16 {
		return fmt.Errorf("vxlan: %w", ErrShort)
	}
	if udp[8]&0x08 == 0 {
		return fmt.Errorf("vxlan: flags 0x%02x: the I flag is not set", udp[8])
	}
	f.VNI = binary.BigEndian.Uint32(udp[12:16]) >> 8
	inner, err := decode(udp[16:], vxlanPort, false)
	if err != nil {
		return fmt.Errorf("inside VNI %d: %w", f.VNI, err)
	}
	f.Inner = &inner
	return nil
}

func decodeIPv4(b []byte) (*IP, []byte, error) {
	if len(b) < 20 || int(b[0]&0x0f)*4 < 20 || len(b) < int(b[0]&0x0f)*4 {
		return nil, nil, fmt.Errorf("ipv4: %w", ErrShort)
	}
	ip := &IP{TTL: b[8], Length: int(binary.BigEndian.Uint16(b[2:4]))}
	src, dst := netip.AddrFrom4([4]byte(b[12:16])), netip.AddrFrom4([4]byte(b[16:20]))
	fragment := binary.BigEndian.Uint16(b[6:8]) & 0x1fff
	body, err := ip.transport(b[9], src, dst, b[int(b[0]&0x0f)*4:], fragment != 0)
	return ip, body, err
}

func decodeIPv6(b []byte) (*IP, []byte, error) {
	if len(b) < 40 {
		return nil, nil, fmt.Errorf("ipv6: %w", ErrShort)
	}
	ip := &IP{TTL: b[7], Length: 40 + int(binary.BigEndian.Uint16(b[4:6]))}
	src, dst := netip.AddrFrom16([16]byte(b[8:24])), netip.AddrFrom16([16]byte(b[24:40]))
	body, err := ip.transport(b[6], src, dst, b[40:], false)
	return ip, body, err
}

// transport reads the ports; a later fragment has none.
func (p *IP) transport(proto byte, src, dst netip.Addr, b []byte, fragment bool) ([]byte, error) {
	p.Src, p.Dst = netip.AddrPortFrom(src, 0), netip.AddrPortFrom(dst, 0)
	names := map[byte]string{1: "icmp", 6: "tcp", 17: "udp", 58: "icmp", 132: "sctp"}
	name, known := names[proto]
	if !known {
		p.Proto = fmt.Sprintf("proto %d", proto)
		return b, nil
	}
	p.Proto = name
	if fragment {
		return nil, nil
	}
	if name == "icmp" {
		if len(b) < 2 {
			return nil, fmt.Errorf("icmp: %w", ErrShort)
		}
		p.Info = icmpText(proto, b[0], b[1])
		return b, nil
	}
	if len(b) < 8 || name == "tcp" && len(b) < 20 {
		return nil, fmt.Errorf("%s: %w", name, ErrShort)
	}
	p.Src = netip.AddrPortFrom(src, binary.BigEndian.Uint16(b[0:2]))
	p.Dst = netip.AddrPortFrom(dst, binary.BigEndian.Uint16(b[2:4]))
	if name == "tcp" {
		p.Flags = tcpFlags(b[13])
	}
	return b, nil
}

func tcpFlags(b byte) string {
	var out strings.Builder
	for i, c := range []string{"F", "S", "R", "P"} {
		if b&(1<<i) != 0 {
			out.WriteString(c)
		}
	}
	if b&0x10 != 0 {
		out.WriteString(".")
	}
	return out.String()
}

func icmpText(proto, kind, code byte) string {
	type key struct{ proto, kind byte }
	names := map[key]string{
		{1, 0}: "echo reply", {1, 3}: "unreachable", {1, 8}: "echo request", {1, 11}: "time exceeded",
		{58, 1}: "unreachable", {58, 2}: "packet too big", {58, 128}: "echo request", {58, 129}: "echo reply",
		{58, 133}: "router solicitation", {58, 134}: "router advertisement", {58, 135}: "neighbor solicitation", {58, 136}: "neighbor advertisement",
	}
	if name, ok := names[key{proto, kind}]; ok {
		if code != 0 {
			return fmt.Sprintf("%s, code %d", name, code)
		}
		return name
	}
	return fmt.Sprintf("type %d, code %d", kind, code)
}

func decodeARP(b []byte) (*ARP, error) {
	if len(b) < 28 {
		return nil, fmt.Errorf("arp: %w", ErrShort)
	}
	return &ARP{
		Reply: binary.BigEndian.Uint16(b[6:8]) == 2, FromMAC: [6]byte(b[8:14]),
		From: netip.AddrFrom4([4]byte(b[14:18])), To: netip.AddrFrom4([4]byte(b[24:28])),
	}, nil
}

// String prints the frame on one line for each layer: the outer packet, then the VXLAN header and the packet inside.
func (f Frame) String() string {
	if f.Inner == nil {
		return f.line()
	}
	return fmt.Sprintf("%s\n    VXLAN vni %d, %s > %s: %s", f.line(), f.VNI, mac(f.Inner.SrcMAC), mac(f.Inner.DstMAC), f.Inner.line())
}

func (f Frame) line() string {
	switch {
	case f.IP != nil:
		return f.IP.String()
	case f.ARP != nil && f.ARP.Reply:
		return fmt.Sprintf("ARP %s is-at %s", f.ARP.From, mac(f.ARP.FromMAC))
	case f.ARP != nil:
		return fmt.Sprintf("ARP who-has %s tell %s", f.ARP.To, f.ARP.From)
	}
	return fmt.Sprintf("ethertype 0x%04x", f.EtherType)
}

// String prints the packet: "tcp 172.16.28.5:38380 -> 172.16.78.9:80 [S], ttl 63, length 60".
func (p IP) String() string {
	s := p.Flow.String()
	if p.Proto == "icmp" || p.Src.Port() == 0 && p.Dst.Port() == 0 {
		s = fmt.Sprintf("%s %s -> %s", p.Proto, p.Src.Addr(), p.Dst.Addr())
	}
	if p.Flags != "" {
		s += " [" + p.Flags + "]"
	}
	if p.Info != "" {
		s += " " + p.Info
	}
	return fmt.Sprintf("%s, ttl %d, length %d", s, p.TTL, p.Length)
}

func mac(b [6]byte) string {
	return fmt.Sprintf("%02x:%02x:%02x:%02x:%02x:%02x", b[0], b[1], b[2], b[3], b[4], b[5])
}

// About reports whether the frame is from or to the address.
func (f Frame) About(a netip.Addr) bool {
	return f.IP != nil && (f.IP.Src.Addr() == a || f.IP.Dst.Addr() == a) || f.ARP != nil && (f.ARP.From == a || f.ARP.To == a)
}
