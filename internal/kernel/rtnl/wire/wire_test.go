package wire

import (
	"bytes"
	"testing"
)

func TestAttrs(t *testing.T) {
	var b Buffer
	b.Begin(1, 0, nil)
	b.Text(1, "eth0")
	b.U8(2, 9)
	b.Nest(3, func() { b.U32(4, 77) })
	b.BE16(5, 8472)
	b.End()
	msgs := b.Messages()
	if len(msgs) != 1 {
		t.Fatalf("%d messages", len(msgs))
	}
	seen := 0
	for typ, data := range Attrs(msgs[0].Data) {
		seen++
		switch typ {
		case 1:
			if Text(data) != "eth0" {
				t.Errorf("text %q", data)
			}
		case 2:
			if !bytes.Equal(data, []byte{9}) {
				t.Errorf("byte %v", data)
			}
		case 3:
			for inner, v := range Attrs(data) {
				if inner != 4 || U32(v) != 77 {
					t.Errorf("nested %d %v", inner, v)
				}
			}
		case 5:
			if BE16(data) != 8472 {
				t.Errorf("port %v", data)
			}
		}
	}
	if seen != 4 {
		t.Errorf("%d attributes, want 4", seen)
	}
}

func TestMAC(t *testing.T) {
	for text, want := range map[string]bool{
		"02:00:00:00:00:01": true, "02:00:00:00:00:0A": true, "02:00:00:00:00": false, "02-00-00-00-00-01": false, "02:00:00:00:00:0g": false, "": false,
	} {
		if _, ok := ParseMAC(text); ok != want {
			t.Errorf("ParseMAC(%q) = %v", text, ok)
		}
	}
	mac, _ := ParseMAC("02:ab:cd:ef:00:01")
	if got := MAC(mac[:]); got != "02:ab:cd:ef:00:01" {
		t.Errorf("MAC prints as %s", got)
	}
	if got := MAC(make([]byte, 8)); got != "" {
		t.Errorf("eight bytes are %q", got)
	}
}

// FuzzSplit reads any bytes as messages and attributes.
func FuzzSplit(f *testing.F) {
	var b Buffer
	b.Begin(1, 0, []byte{1, 2, 3, 4})
	b.Text(1, "eth0")
	b.End()
	f.Add(b.bytes)
	f.Add([]byte{4, 0, 0, 0})
	f.Fuzz(func(_ *testing.T, data []byte) {
		msgs, _ := split(data)
		for _, m := range msgs {
			_ = ackError(m)
			for _, v := range Attrs(m.Data) {
				_, _, _, _, _ = U32(v), U16(v), Text(v), Addr(v), MAC(v)
			}
		}
	})
}
