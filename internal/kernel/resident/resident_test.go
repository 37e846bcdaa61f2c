package resident

import (
	"os"
	"strconv"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	const text = `00400000-013b5000 r-xp 00000000 fe:00 10023276                           /opt/my programs/weft
Size:              16084 kB
Anonymous:             0 kB
013b5000-02436000 r--p 00fb5000 fe:00 10023276                           /opt/my programs/weft
Anonymous:            12 kB
c000000000-c000400000 rw-p 00000000 00:00 0
Anonymous:          4096 kB
nonsense - here is no address
`
	got := parse(strings.NewReader(text))
	want := []mapping{
		{0x400000, 0x13b5000, "r-xp", "/opt/my programs/weft", 0},
		{0x13b5000, 0x2436000, "r--p", "/opt/my programs/weft", 12},
		{0xc000000000, 0xc000400000, "rw-p", "", 4096},
	}
	if len(got) != len(want) {
		t.Fatalf("%+v", got)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("%+v, want %+v", got[i], want[i])
		}
	}
}

// TestDropProgram: less of the file is mapped afterwards, and the program goes on.
func TestDropProgram(t *testing.T) {
	before := fileKiB(t)
	n, err := DropProgram()
	if err != nil || n == 0 {
		t.Fatalf("%d bytes, %v", n, err)
	}
	if after := fileKiB(t); after >= before {
		t.Errorf("%d KiB of files before, %d after", before, after)
	}
}

func fileKiB(t *testing.T) int {
	t.Helper()
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "RssFile:")
	n, err := strconv.Atoi(strings.Fields(rest)[0])
	if err != nil {
		t.Fatal(err)
	}
	return n
}
