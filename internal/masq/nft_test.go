package masq_test

import (
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"weft/internal/kernel/netns"
	"weft/internal/masq"
)

func TestNFTGolden(t *testing.T) {
	netns.Need(t)
	for name, c := range configs() {
		table := masq.NFT(c)
		table.Sort()
		text := table.String()
		cmd := exec.Command("nft", "-c", "-f", "-")
		cmd.Stdin = strings.NewReader(text)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: nft -c: %v\n%s", name, err, out)
		}
		file := filepath.Join("testdata", name+".nft")
		if *update {
			if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		golden, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(string(golden), text); d != "" {
			t.Errorf("%s differs (-golden +plan), write it with -update:\n%s", file, d)
		}
	}
}

// TestMarksOnce: what others marked is left to them in every chain, whichever families the network has, by one rule for both.
func TestMarksOnce(t *testing.T) {
	for name, c := range configs() {
		if c.Mode != masq.Outside {
			continue
		}
		for _, families := range []string{"IPv4", "IPv6", "both"} {
			c := c
			if c.NetworkV6, c.SubnetV6 = netip.MustParsePrefix("fd00:16::/32"), netip.MustParsePrefix("fd00:16:0:28::/64"); families == "IPv4" {
				c.NetworkV6, c.SubnetV6 = netip.Prefix{}, netip.Prefix{}
			}
			if families == "IPv6" {
				c.Network, c.Subnet = netip.Prefix{}, netip.Prefix{}
			}
			for _, chain := range masq.NFT(c).Chains {
				text := chain.String()
				if n := strings.Count(text, "meta mark & "); n != 1 {
					t.Errorf("%s, %s: %d rules about the mark in\n%s", name, families, n, text)
				}
			}
		}
	}
}
