package docs_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"weft/internal/masq"
	"weft/internal/masq/contract"
)

// TestContract compares the tables of docs/masquerade.md with the source-address contract, from which -update writes them.
func TestContract(t *testing.T) {
	const path = "masquerade.md"
	text := page(t, path)
	for marker, want := range map[string]string{"contract": contractTable(), "contract: backends": backendTable()} {
		begin := "<!-- " + marker + " -->\n"
		before, rest, ok := strings.Cut(text, begin)
		if !ok {
			t.Fatalf("%s: no marker %q", path, marker)
		}
		var got strings.Builder
		after := rest
		for strings.HasPrefix(after, "|") {
			line, more, _ := strings.Cut(after, "\n")
			got.WriteString(line + "\n")
			after = more
		}
		if d := cmp.Diff(want, got.String()); d != "" && !*update {
			t.Errorf("%s: table %q (-contract +page, -update writes the page):\n%s", path, marker, d)
		}
		text = before + begin + want + after
	}
	if *update {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func contractTable() string {
	var b strings.Builder
	fmt.Fprintf(&b, "| from | to | %s | %s | %s | why |\n|---|---|---|---|---|---|\n", contract.Modes[0], contract.Modes[1], contract.Modes[2])
	for _, r := range contract.Rows {
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s |\n", r.From, to(r), r.Seen[0], r.Seen[1], r.Seen[2], r.Why)
	}
	return b.String()
}

// to is the destination with what limits the row.
func to(r contract.Row) string {
	limits := []string{string(r.To)}
	if r.Backend != "" {
		limits = append(limits, "backend "+r.Backend)
	}
	if r.Attach != "" && r.From != contract.Node {
		limits = append(limits, "attach "+r.Attach)
	}
	for bit, word := range []string{"IPv4", "IPv6", "UDP"} {
		if r.Only&(1<<bit) != 0 {
			limits = append(limits, word)
		}
	}
	if len(r.Deaf) > 0 {
		limits = append(limits, "UDP in mode "+string(masq.None))
	}
	if len(limits) == 1 {
		return limits[0]
	}
	return limits[0] + " (" + strings.Join(limits[1:], ", ") + ")"
}

func backendTable() string {
	var b strings.Builder
	b.WriteString("| backend | the node's address towards pods elsewhere |\n|---|---|\n")
	for _, x := range contract.Backends {
		where := "its address on the underlay"
		if x.Device != "" {
			where = "the subnet's first, `.0`, on `" + x.Device + "`"
			if x.DeviceV6 != x.Device {
				where += ", IPv6 on `" + x.DeviceV6 + "`"
			}
		}
		fmt.Fprintf(&b, "| %s | %s |\n", x.Name, where)
	}
	return b.String()
}
