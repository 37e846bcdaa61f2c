// Package docs_test keeps the pages of this directory true: what they quote of the goldens, the tables that the code decides, the flags
// they list, and the links between them.
//
// A fenced block after a marker is a quotation of a golden file, or of a part of it:
//
//	<!-- golden: internal/overlay/testdata/vxlan.txt -->
//	<!-- golden: internal/attach/testdata/routed.txtar#host -->                          a section of a txtar file
//	<!-- golden: ….txtar#ruleset.nft | blocks: map vips4, chain c2-4 -->                 blocks of an nftables ruleset
//	<!-- golden: internal/masq/testdata/underlay.txt | lines: ^-A WEFT-POSTROUTING -->   the lines that match
//
// "go test ./docs -update" writes the quotations anew.
package docs_test

import (
	"bytes"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"
)

var update = flag.Bool("update", false, "write the quotations of goldens anew")

// root is the repository.
const root = ".."

// pages returns every page below this directory, by path.
func pages(t *testing.T) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Ext(path) != ".md" {
			return err
		}
		text, err := os.ReadFile(path)
		out[path] = string(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// page returns one page.
func page(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// quotation is a marker and the fenced block after it.
var quotation = regexp.MustCompile("(?m)^<!-- golden: (.+?) -->\n+(```\\w*\n)((?s:.*?))(^```\n)")

func TestQuotations(t *testing.T) {
	quoted := 0
	for path, text := range pages(t) {
		if markers := strings.Count(text, "<!-- golden: "); markers != len(quotation.FindAllString(text, -1)) {
			t.Errorf("%s: a golden marker has no fenced block after it", path)
			continue
		}
		now := quotation.ReplaceAllStringFunc(text, func(all string) string {
			m := quotation.FindStringSubmatch(all)
			want, err := golden(m[1])
			if err != nil {
				t.Errorf("%s: golden %s: %v", path, m[1], err)
				return all
			}
			quoted++
			if d := cmp.Diff(want, m[3]); d != "" && !*update {
				t.Errorf("%s: golden %s (-golden +page, -update writes the page):\n%s", path, m[1], d)
			}
			return strings.TrimSuffix(all, m[2]+m[3]+m[4]) + m[2] + want + m[4]
		})
		if *update && now != text {
			if err := os.WriteFile(path, []byte(now), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	if quoted < 10 {
		t.Errorf("%d quotations: were the markers renamed?", quoted)
	}
}

// golden returns what a marker names.
func golden(marker string) (string, error) {
	where, part, _ := strings.Cut(marker, " | ")
	file, section, _ := strings.Cut(where, "#")
	data, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(file)))
	if err != nil {
		return "", err
	}
	if section != "" {
		if data, err = sectionOf(data, section); err != nil {
			return "", err
		}
	}
	text := string(data)
	if list, ok := strings.CutPrefix(part, "blocks: "); ok {
		return blocks(text, strings.Split(list, ", "))
	}
	if pattern, ok := strings.CutPrefix(part, "lines: "); ok {
		return lines(text, pattern)
	}
	if part != "" {
		return "", fmt.Errorf("%q: want blocks: or lines:", part)
	}
	return text, nil
}

// sectionOf returns the file of a txtar archive whose name is section or begins with it.
func sectionOf(archive []byte, section string) ([]byte, error) {
	for _, f := range txtar.Parse(archive).Files {
		if f.Name == section || strings.HasPrefix(f.Name, section+" ") {
			return f.Data, nil
		}
	}
	return nil, fmt.Errorf("no section %q", section)
}

// blocks returns blocks of a ruleset by their first line, without the table's indent.
func blocks(ruleset string, names []string) (string, error) {
	var out []string
	for _, name := range names {
		_, rest, ok := strings.Cut(ruleset, "\n\t"+name+" {\n")
		body, _, end := strings.Cut(rest, "\n\t}\n")
		if !ok || !end {
			return "", fmt.Errorf("no block %q", name)
		}
		out = append(out, name+" {\n"+strings.ReplaceAll("\n"+body, "\n\t", "\n")[1:]+"\n}\n")
	}
	return strings.Join(out, ""), nil
}

func lines(text, pattern string) (string, error) {
	re, err := regexp.Compile(pattern)
	if err != nil {
		return "", err
	}
	var b bytes.Buffer
	for line := range strings.Lines(text) {
		if re.MatchString(strings.TrimSuffix(line, "\n")) {
			b.WriteString(line)
		}
	}
	if b.Len() == 0 {
		return "", fmt.Errorf("no line matches %s", pattern)
	}
	return b.String(), nil
}

var link = regexp.MustCompile(`\]\(([^)\s]+)\)`)

// TestLinks checks that relative links lead to a file, and every page but the decisions can be reached from README.md.
func TestLinks(t *testing.T) {
	all := pages(t)
	readme := page(t, filepath.Join(root, "README.md"))
	for path, text := range all {
		dir := filepath.Dir(path)
		for _, m := range link.FindAllStringSubmatch(text, -1) {
			target, _, _ := strings.Cut(m[1], "#")
			if target == "" || strings.Contains(target, "://") {
				continue
			}
			if _, err := os.Stat(filepath.Join(dir, target)); err != nil {
				t.Errorf("%s: link to %s: %v", path, m[1], err)
			}
		}
		if dir != "adr" && !strings.Contains(readme, "(docs/"+filepath.ToSlash(path)+")") {
			t.Errorf("%s: not in the list of pages in README.md", path)
		}
	}
}

// TestLineLength keeps prose readable in a terminal. Tables, quotations and the output of programs are as long as they are.
func TestLineLength(t *testing.T) {
	for path, text := range pages(t) {
		if filepath.Dir(path) == "adr" {
			continue // decisions are not rewritten
		}
		fenced := false
		for i, line := range strings.Split(text, "\n") {
			if strings.HasPrefix(line, "```") {
				fenced = !fenced
			}
			if !fenced && !strings.HasPrefix(line, "|") && !strings.HasPrefix(line, "<!--") && utf8.RuneCountInString(line) > 160 {
				t.Errorf("%s:%d: %d characters: wrap it", path, i+1, utf8.RuneCountInString(line))
			}
		}
	}
}
