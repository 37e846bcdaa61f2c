package masq_test

import (
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
