package nft

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// ParseTable reads what Table.String prints. It is no reader for all that nft(8) can write: blocks and statements are on lines of
// their own, and unknown statements are errors.
func ParseTable(text string) (Table, error) {
	b := &blocks{lines: strings.Split(text, "\n")}
	t, err := b.table()
	if err != nil {
		return Table{}, fmt.Errorf("parse table: line %d: %w", b.at, err)
	}
	return t, nil
}

// blocks reads the lines of a table.
type blocks struct {
	lines []string
	at    int // lines read
}

// line returns the words of the next line that is not empty; ok is false at the end.
func (b *blocks) line() (string, bool) {
	for b.at < len(b.lines) {
		b.at++
		if s := strings.TrimSpace(b.lines[b.at-1]); s != "" {
			return s, true
		}
	}
	return "", false
}

func (b *blocks) table() (Table, error) {
	var t Table
	head, _ := b.line()
	p, err := newParser(head)
	if err != nil {
		return t, err
	}
	p.expect("table")
	t.Family = Family(p.next())
	if !slices.Contains([]Family{INet, IPv4, IPv6}, t.Family) {
		p.fail("family %q: want inet, ip or ip6", short(string(t.Family)))
	}
	t.Name = p.name()
	p.expect("{")
	if p.err != nil {
		return t, p.err
	}
	for {
		s, ok := b.line()
		if !ok {
			return t, errEnd
		}
		if s == "}" {
			return t, nil
		}
		if err := b.block(&t, s); err != nil {
			return t, err
		}
	}
}

func (b *blocks) block(t *Table, head string) error {
	kind, rest, _ := strings.Cut(head, " ")
	name, brace, _ := strings.Cut(rest, " ")
	if brace != "{" || !validName(name) {
		return fmt.Errorf("want \"chain\", \"set\" or \"map\", a name and {: have %q", short(head))
	}
	switch kind {
	case "chain":
		c, err := b.chain(name)
		t.Chains = append(t.Chains, c)
		return err
	case "set", "map":
		s, err := b.set(name)
		t.Sets = append(t.Sets, s)
		if err == nil && s.Map() != (kind == "map") {
			err = fmt.Errorf("%s %s: a map has a value, a set has none", kind, name)
		}
		return err
	}
	return fmt.Errorf("unknown block %q", short(kind))
}

func (b *blocks) chain(name string) (Chain, error) {
	c := Chain{Name: name}
	for {
		s, ok := b.line()
		if !ok {
			return c, errEnd
		}
		if s == "}" {
			return c, nil
		}
		if strings.HasPrefix(s, "type ") && len(c.Rules) == 0 && c.Base == (Base{}) {
			base, err := parseBase(s)
			if err != nil {
				return c, err
			}
			c.Base = base
			continue
		}
		r, err := ParseRule(s)
		if err != nil {
			return c, err
		}
		c.Rules = append(c.Rules, r)
	}
}

func parseBase(s string) (Base, error) {
	p, err := newParser(strings.ReplaceAll(s, ";", " ;"))
	if err != nil {
		return Base{}, err
	}
	var b Base
	p.expect("type")
	b.Type = ChainType(p.next())
	p.expect("hook")
	b.Hook = Hook(p.next())
	p.expect("priority")
	w := p.next()
	if n, err := strconv.ParseInt(w, 10, 32); err == nil {
		b.Priority = int(n)
	} else {
		p.fail("priority %q: want a number", short(w))
	}
	p.expect(";", "policy")
	b.Drop = p.have("drop")
	if !b.Drop {
		p.expect("accept")
	}
	p.expect(";")
	switch {
	case p.err != nil:
	case !slices.Contains([]ChainType{Filter, NAT, Route}, b.Type):
		p.fail("chain type %q: want filter, nat or route", short(string(b.Type)))
	case !slices.Contains([]Hook{Prerouting, Input, Forward, Output, Postrouting}, b.Hook):
		p.fail("hook %q: want prerouting, input, forward, output or postrouting", short(string(b.Hook)))
	case len(p.words) > 0:
		p.fail("unexpected %q", short(p.words[0]))
	}
	return b, p.err
}

func (b *blocks) set(name string) (Set, error) {
	set := Set{Name: name}
	for {
		s, ok := b.line()
		if !ok {
			return set, errEnd
		}
		if s == "}" {
			if len(set.Key) == 0 {
				return set, fmt.Errorf("set %s has no type", name)
			}
			return set, nil
		}
		if err := b.setLine(&set, s); err != nil {
			return set, err
		}
	}
}

func (b *blocks) setLine(set *Set, s string) error {
	if rest, ok := strings.CutPrefix(s, "elements = { "); ok {
		return b.elements(set, rest)
	}
	p, err := newParser(s)
	if err != nil {
		return err
	}
	switch w := p.next(); w {
	case "type", "typeof":
		set.Key, set.Data, set.Verdicts = p.types(w == "typeof")
	case "flags":
		for f := range strings.SplitSeq(p.next(), ",") {
			switch f {
			case "interval":
				set.Interval = true
			case "dynamic":
				set.Dynamic = true
			case "timeout":
			default:
				p.fail("unknown flag %q", short(f))
			}
		}
	case "timeout":
		set.Timeout = p.seconds()
	case "size":
		set.Size = p.number(math.MaxUint32)
	default:
		p.fail("unknown words %q", short(s))
	}
	if p.err == nil && len(p.words) > 0 {
		p.fail("unexpected %q", short(p.words[0]))
	}
	return p.err
}

// types reads the types of keys and values; with typeof they are named by expressions.
func (p *parser) types(typeof bool) (key, data []Type, verdicts bool) {
	key = p.typeList(typeof)
	if !p.have(":") {
		return key, nil, false
	}
	if p.have("verdict") {
		return key, nil, true
	}
	return key, p.typeList(typeof), false
}

func (p *parser) typeList(typeof bool) []Type {
	words := typeWords[:]
	if typeof {
		words = typeofWords[:]
	}
	var out []Type
	for {
		found := false
		for t := IPv4Addr; t <= NumGen && !found; t++ {
			if found = words[t] != "" && p.have(strings.Fields(words[t])...); found {
				out = append(out, t)
			}
		}
		if !found {
			p.fail("unknown type %q", short(strings.Join(p.words, " ")))
			return nil
		}
		if !p.have(".") {
			return out
		}
	}
}

// elements reads the elements, one a line, until the line that ends with a brace.
func (b *blocks) elements(set *Set, s string) error {
	for {
		text, last := strings.CutSuffix(s, " }")
		e, err := set.ParseElement(strings.TrimSuffix(text, ","))
		if err != nil {
			return err
		}
		set.Elements = append(set.Elements, e)
		if last {
			return nil
		}
		var ok bool
		if s, ok = b.line(); !ok {
			return errEnd
		}
	}
}

func (p *parser) element(s Set) Element {
	var e Element
	first, last := make([]Value, len(s.Key)), make([]Value, len(s.Key))
	for i, t := range s.Key {
		if i > 0 {
			p.expect(".")
		}
		first[i], last[i] = p.between(t, s.Interval)
	}
	if p.err != nil {
		return e
	}
	e.Key = MakeTuple(s.Key, first)
	if end := MakeTuple(s.Key, last); end != e.Key {
		e.KeyEnd = end
	}
	if !s.Map() {
		return e
	}
	p.expect(":")
	if s.Verdicts {
		e.Verdict = p.verdict()
		return e
	}
	data := make([]Value, len(s.Data))
	for i, t := range s.Data {
		if i > 0 {
			p.expect(".")
		}
		data[i] = p.value(t)
	}
	if p.err == nil {
		e.Data = MakeTuple(s.Data, data)
	}
	return e
}

// between reads a component that may be a range.
func (p *parser) between(t Type, interval bool) (first, last Value) {
	w := p.peek()
	from, to, ok := strings.Cut(w, "-")
	if !interval || !ok || w[0] == '"' || t == InetProto {
		v := p.value(t)
		return v, v
	}
	p.next()
	if p.err != nil {
		return first, last
	}
	a, b := parser{words: []string{from}}, parser{words: []string{to}}
	first, last = a.value(t), b.value(t)
	if a.err != nil || b.err != nil {
		p.fail("range %q", short(w))
	}
	return first, last
}
