package xt

import (
	"errors"
	"fmt"
	"strings"
)

// Parse reads what iptables-save(8) prints; comments and counters are skipped. Text it can't place is an error that names the line.
func Parse(text string) (Tables, error) {
	p := parser{index: map[[2]string]int{}}
	n := 0
	for line := range strings.SplitSeq(text, "\n") {
		n++
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' || line == "COMMIT" {
			continue
		}
		if err := p.line(line); err != nil {
			return nil, fmt.Errorf("parse iptables-save line %d %q: %w", n, line, err)
		}
	}
	return p.tables, nil
}

type parser struct {
	tables Tables
	index  map[[2]string]int // table and chain to the chain's position
}

func (p *parser) line(line string) error {
	if name, ok := strings.CutPrefix(line, "*"); ok {
		if name == "" || strings.ContainsAny(name, " \t") {
			return fmt.Errorf("%q is no table name", name)
		}
		for _, t := range p.tables {
			if t.Name == name {
				return fmt.Errorf("table %s comes twice", name)
			}
		}
		p.tables = append(p.tables, Table{Name: name})
		return nil
	}
	if len(p.tables) == 0 {
		return fmt.Errorf("a *TABLE line must come first")
	}
	if line[0] == ':' {
		return p.chain(line[1:])
	}
	return p.rule(skipCounters(line))
}

func (p *parser) chain(line string) error {
	f := strings.Fields(line)
	if len(f) < 2 {
		return fmt.Errorf("want :CHAIN POLICY [packets:bytes]")
	}
	t := &p.tables[len(p.tables)-1]
	id := [2]string{t.Name, f[0]}
	if _, twice := p.index[id]; twice {
		return fmt.Errorf("chain %s comes twice", f[0])
	}
	c := Chain{Name: f[0], Policy: f[1]}
	if c.Policy == "-" {
		c.Policy = ""
	}
	p.index[id] = len(t.Chains)
	t.Chains = append(t.Chains, c)
	return nil
}

func (p *parser) rule(line string) error {
	rest, ok := strings.CutPrefix(line, "-A ")
	if !ok {
		return errors.New("want -A CHAIN and a rule")
	}
	name, spec, _ := strings.Cut(rest, " ")
	t := &p.tables[len(p.tables)-1]
	i, ok := p.index[[2]string{t.Name, name}]
	if !ok {
		return fmt.Errorf("chain %q is not declared with a : line", name)
	}
	r, err := ParseRule(spec)
	if err != nil {
		return err
	}
	t.Chains[i].Rules = append(t.Chains[i].Rules, r)
	return nil
}

// skipCounters takes "[12:345] " off the line, which iptables-save -c prints.
func skipCounters(line string) string {
	if line[0] == '[' {
		if _, rest, ok := strings.Cut(line, "] "); ok {
			return rest
		}
	}
	return line
}

// token is a word of a rule: its text without quotes, and where it stands in the line.
type token struct {
	text       string
	start, end int
}

// tokenize splits as iptables-restore does: at blanks, with double quotes and backslashes.
func tokenize(s string) ([]token, error) {
	var out []token
	for i := 0; i < len(s); {
		if s[i] == ' ' || s[i] == '\t' {
			i++
			continue
		}
		t := token{start: i}
		var word []byte
		inQuote := false
		for ; i < len(s) && (inQuote || s[i] != ' ' && s[i] != '\t'); i++ {
			switch {
			case s[i] == '\\' && inQuote && i+1 < len(s):
				i++
				word = append(word, s[i])
			case s[i] == '"':
				inQuote = !inQuote
			default:
				word = append(word, s[i])
			}
		}
		if inQuote {
			return nil, fmt.Errorf("a quote at column %d is not closed", t.start+1)
		}
		t.text, t.end = string(word), i
		out = append(out, t)
	}
	return out, nil
}

// ParseRule reads what follows "-A CHAIN " in iptables-save.
func ParseRule(spec string) (Rule, error) {
	words, err := tokenize(spec)
	if err != nil {
		return Rule{}, err
	}
	p := ruleParser{spec: spec, words: words}
	for len(p.words) > 0 {
		if err := p.part(); err != nil {
			return Rule{}, err
		}
	}
	return p.rule, nil
}

type ruleParser struct {
	spec  string
	words []token
	rule  Rule
}

// part reads one header option, match or target.
func (p *ruleParser) part() error {
	not := p.words[0].text == "!"
	rest := p.words
	if not {
		rest = rest[1:]
	}
	if len(rest) > 1 && p.header(rest[0].text, rest[1].text, not) {
		p.words = rest[2:]
		return nil
	}
	n := p.extent()
	words := p.words[:n]
	text := p.spec[words[0].start:words[n-1].end]
	p.words = p.words[n:]
	switch words[0].text {
	case "-m":
		if n < 2 {
			return fmt.Errorf("-m wants the name of a match")
		}
		p.rule.Match = append(p.rule.Match, parseMatch(words, text))
	case "-j", "-g":
		if n < 2 {
			return fmt.Errorf("%s wants a target", words[0].text)
		}
		if p.rule.Target != nil {
			return fmt.Errorf("second target %q", text)
		}
		p.rule.Target = parseTarget(words, text)
	default:
		p.rule.Match = append(p.rule.Match, Raw(text))
	}
	return nil
}

// extent is the number of words up to the next match or target, at least one.
func (p *ruleParser) extent() int {
	for i, w := range p.words[1:] {
		if w.text == "-m" || w.text == "-j" || w.text == "-g" {
			return i + 1
		}
	}
	return len(p.words)
}

// header takes one of -s -d -i -o -p when its value is of the usual form and the first of its kind.
func (p *ruleParser) header(option, value string, not bool) bool {
	r := &p.rule
	switch option {
	case "-s":
		return setAddress(&r.Src, value, not)
	case "-d":
		return setAddress(&r.Dst, value, not)
	case "-i":
		return setOnce(&r.In, Iface{value, not}, value)
	case "-o":
		return setOnce(&r.Out, Iface{value, not}, value)
	case "-p":
		return setOnce(&r.Proto, Proto{value, not}, value)
	}
	return false
}

func setOnce[T comparable](to *T, v T, value string) bool {
	var zero T
	if *to != zero || quote(value) != value {
		return false
	}
	*to = v
	return true
}
