package rtnl

import (
	"testing"

	"golang.org/x/sys/unix"

	"weft/internal/kernel/rtnl/wire"
	"weft/internal/netstate"
)

// lines are objects of each kind that goes over the wire.
var lines = []string{
	"addr 10.0.0.1/24 dev eth0",
	"addr fd00::1/64 dev eth0 nodad",
	"neigh 10.0.0.1 lladdr 02:00:00:00:00:01 dev eth0 nud permanent",
	"neigh fd00::1 lladdr 02:00:00:00:00:01 dev eth0 nud permanent",
	"fdb 02:00:00:00:00:01 dev eth0 dst 10.0.0.1 self permanent",
	"route 10.0.0.0/24 via 10.0.0.1 dev eth0 proto 119 onlink",
	"route 10.0.0.0/24 via inet6 fe80::1 dev eth0 proto 119",
	"route 10.0.0.0/24 dev eth0 table 1000 proto 4 src 10.0.0.9 metric 7 mtu 1400",
	"route 10.0.0.1/32 dev eth0 proto 119 scope global",
	"route local 10.0.0.0/24 dev eth0 proto 119",
	"route unreachable fd00::/64 proto 119 metric 65535",
	"route 0.0.0.0/0 via 10.0.0.1 dev eth0 proto 119",
	"route ::/0 via fe80::1 dev eth0 proto 119",
}

// FuzzDecode gives the decoders any bytes: they may refuse, but what they accept must print.
func FuzzDecode(f *testing.F) {
	add := func(fill func(*wire.Buffer)) {
		var b wire.Buffer
		fill(&b)
		for kind := range uint16(4) {
			f.Add(kind, b.Messages()[0].Data)
		}
	}
	for _, line := range lines {
		o, err := netstate.ParseLine(line)
		if err != nil {
			f.Fatal(err)
		}
		add(func(b *wire.Buffer) { encode(b, netstate.Op{Object: o}, 7) })
	}
	add(func(b *wire.Buffer) {
		b.Begin(unix.RTM_NEWLINK, 0, []byte{4: 1, 15: 0})
		b.Text(unix.IFLA_IFNAME, "flannel.1")
		b.Nest(unix.IFLA_LINKINFO, func() {
			b.Text(unix.IFLA_INFO_KIND, "vxlan")
			b.Nest(unix.IFLA_INFO_DATA, func() { encodeVXLAN(b, netstate.VXLAN{VNI: 1, Port: 8472}, 2) })
		})
		b.End()
	})
	name := func(i int) (string, bool) { return "eth0", i != 0 }
	f.Fuzz(func(t *testing.T, typ uint16, data []byte) {
		m := wire.Message{Type: typ, Data: data}
		check := func(o netstate.Object, ok bool) {
			if ok && (o.String() == "" || o.Key() == "") {
				t.Errorf("%#v has no text", o)
			}
		}
		switch typ % 4 {
		case 0:
			l, ok := decodeLink(m)
			check(l.Link, ok)
		case 1:
			a, ok := decodeAddr(m, name)
			check(a, ok)
		case 2:
			o, ok := decodeNeigh(m, name, typ%8 > 3)
			check(o, ok)
		case 3:
			r, ok := decodeRoute(m, name)
			check(r, ok)
		}
	})
}

// TestEncodeDecode reads back what is encoded, so that both sides of the wire mean the same.
func TestEncodeDecode(t *testing.T) {
	name := func(i int) (string, bool) { return "eth0", i == 7 }
	for _, line := range lines {
		o, err := netstate.ParseLine(line)
		if err != nil {
			t.Fatal(err)
		}
		index := 0
		if o.On() != "" {
			index = 7
		}
		var b wire.Buffer
		encode(&b, netstate.Op{Object: o}, index)
		m := b.Messages()[0]
		var got netstate.Object
		var ok bool
		switch o.(type) {
		case netstate.Addr:
			m.Data[2] |= unix.IFA_F_PERMANENT // as the kernel says it
			got, ok = decodeAddr(m, name)
		case netstate.Route:
			got, ok = decodeRoute(m, name)
		default:
			got, ok = decodeNeigh(m, name, false)
		}
		if !ok || got != o {
			t.Errorf("%s is read back as %v", line, got)
		}
	}
}
