package attachments

import (
	"net/netip"
	"path/filepath"
	"testing"

	"weft/internal/attach"
)

func TestAttachmentsSurviveARestart(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pods.json")
	subnet := netip.MustParsePrefix("172.16.28.0/24")
	a, err := Open(file)
	if err != nil {
		t.Fatal(err)
	}
	first, err := a.Add(attach.Pod{UID: "u1", Namespace: "default", Name: "a", Netns: "/n/1"}, subnet)
	if err != nil {
		t.Fatal(err)
	}
	second, err := a.Add(attach.Pod{UID: "u2", Namespace: "default", Name: "b", Netns: "/n/2"}, subnet)
	if err != nil {
		t.Fatal(err)
	}
	if first.IPs[0] != netip.MustParseAddr("172.16.28.2") || second.IPs[0] != netip.MustParseAddr("172.16.28.3") {
		t.Fatalf("addresses %v, %v: want .2, .3", first.IPs, second.IPs)
	}
	b, err := Open(file)
	if err != nil {
		t.Fatal(err)
	}
	again, err := b.Add(attach.Pod{UID: "u2", Namespace: "default", Name: "b", Netns: "/n/2"}, subnet)
	if err != nil || again.IPs[0] != second.IPs[0] {
		t.Fatalf("after a restart %v, %v: want %v", again.IPs, err, second.IPs)
	}
	if gone, err := b.Remove("u1"); !gone || err != nil {
		t.Fatalf("remove = %v, %v", gone, err)
	}
	third, err := b.Add(attach.Pod{UID: "u3", Netns: "/n/3"}, subnet)
	if err != nil || third.IPs[0] != netip.MustParseAddr("172.16.28.4") {
		t.Fatalf("the address given up was given out at once: %v, %v", third.IPs, err)
	}
}

func TestAttachmentsRefuseAFullSubnet(t *testing.T) {
	a, err := Open(filepath.Join(t.TempDir(), "pods.json"))
	if err != nil {
		t.Fatal(err)
	}
	subnet := netip.MustParsePrefix("10.0.0.0/30") // one pod address: .2
	if _, err := a.Add(attach.Pod{UID: "u1"}, subnet); err != nil {
		t.Fatal(err)
	}
	if p, err := a.Add(attach.Pod{UID: "u2"}, subnet); err == nil {
		t.Fatalf("a full subnet gave %v", p.IPs)
	}
	if n := len(a.List()); n != 1 {
		t.Fatalf("%d pods after a refusal, want 1", n)
	}
}
