package explain

import (
	"net/netip"
	"testing"

	"weft/internal/nft"
	"weft/internal/packet"
)

// TestDrawnVerdicts: with session affinity a random number leads to one of several chains, and each is an answer.
func TestDrawnVerdicts(t *testing.T) {
	table, err := nft.ParseTable(`table inet weft {
	map picks4 {
		typeof ip daddr . numgen random mod 65536 : verdict
		elements = { 10.254.0.1 . 0 : goto a,
			     10.254.0.1 . 1 : goto b,
			     10.254.0.1 . 2 : goto a,
			     10.254.0.2 . 3 : goto a }
	}
	chain a {
		dnat ip to 172.16.0.1:80
	}
	chain b {
		dnat ip to 172.16.0.2:80
	}
	chain services {
		type nat hook prerouting priority -100; policy accept;
		ip daddr . numgen random mod 4 vmap @picks4
		dnat ip to 172.16.0.3:80
	}
}`)
	if err != nil {
		t.Fatal(err)
	}
	ask := func(to string) []Outcome {
		f := packet.Flow{Proto: "tcp", Src: netip.MustParseAddrPort("172.16.9.9:4000"), Dst: netip.MustParseAddrPort(to)}
		return NFTables{Table: table}.Eval(Prerouting, Packet{Flow: f, In: "eth0"})
	}
	got := ask("10.254.0.1:80")
	if len(got) != 1 || got[0].Action != OneOf || len(got[0].Alternatives) != 2 {
		t.Fatalf("outcomes %+v, want one of two chains, and none after", got)
	}
	for i, want := range []string{"172.16.0.1:80", "172.16.0.2:80"} {
		if to := destinations(got[0].Alternatives[i]); len(to) != 1 || to[0].String() != want {
			t.Errorf("alternative %d leads to %v, want %s", i, to, want)
		}
	}
	if got := ask("10.254.0.2:80"); len(got) != 2 || got[1].To[0].String() != "172.16.0.1:80" {
		t.Errorf("a single chain: %+v", got)
	}
	if got := ask("10.254.0.3:80"); len(got) != 1 || got[0].To[0].String() != "172.16.0.3:80" {
		t.Errorf("no chain: %+v", got)
	}
}
