package packet

import (
	"encoding/hex"
	"errors"
	"strings"
	"testing"
)

// syn is a TCP SYN from 172.16.28.5:38380 to 172.16.78.9:80 in VNI 1, between 172.17.42.31 and 172.17.42.32.
const syn = "02000000002002000000001f0800" +
	"450000520000400040110000ac112a1fac112a20" + "d4312118003e0000" +
	"0800000000000100" +
	"0a00000000780a00000000280800" +
	"450000280000400040060000ac101c05ac104e09" +
	"95ec0050000000000000000050020000" + "00000000"

func frame(t *testing.T) []byte {
	t.Helper()
	b, err := hex.DecodeString(syn)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestDecodeVXLAN(t *testing.T) {
	f, err := Decode(frame(t), VXLANPort)
	if err != nil {
		t.Fatal(err)
	}
	want := "udp 172.17.42.31:54321 -> 172.17.42.32:8472, ttl 64, length 82\n" +
		"    VXLAN vni 1, 0a:00:00:00:00:28 > 0a:00:00:00:00:78: tcp 172.16.28.5:38380 -> 172.16.78.9:80 [S], ttl 64, length 40"
	if got := f.String(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if f, err := Decode(frame(t), 4789); err != nil || f.Inner != nil {
		t.Errorf("another port was unwrapped: %v, %v", f, err)
	}
}

func TestDecodeRefusesShortPackets(t *testing.T) {
	whole := frame(t)
	for n := range whole[:len(whole)-1] {
		if _, err := Decode(whole[:n], VXLANPort); !errors.Is(err, ErrShort) {
			t.Fatalf("%d of %d bytes: error %v, want ErrShort", n, len(whole), err)
		}
	}
	noFlag := frame(t)
	noFlag[14+20+8] = 0
	if _, err := Decode(noFlag, VXLANPort); err == nil || !strings.Contains(err.Error(), "I flag") {
		t.Errorf("a packet without the I flag: %v", err)
	}
}

func FuzzDecode(f *testing.F) {
	b, err := hex.DecodeString(syn)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		x, err := Decode(b, VXLANPort)
		if err == nil && x.String() == "" {
			t.Error("a frame prints as nothing")
		}
	})
}
