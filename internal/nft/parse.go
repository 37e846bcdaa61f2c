package nft

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"strconv"
	"strings"
)

// errEnd says that the text ended too early.
var errEnd = errors.New("the text ends too early")

// ParseRule reads what Rule.String prints.
func ParseRule(text string) (Rule, error) {
	p, err := newParser(text)
	if err != nil {
		return Rule{}, fmt.Errorf("parse rule: %w", err)
	}
	r := p.rule()
	if p.err != nil {
		return Rule{}, fmt.Errorf("parse rule %q: %w", short(text), p.err)
	}
	return r, nil
}

// ParseElement reads what ElementText of a set of these types prints.
func (s Set) ParseElement(text string) (Element, error) {
	p, err := newParser(text)
	if err != nil {
		return Element{}, fmt.Errorf("parse element: %w", err)
	}
	e := p.element(s)
	if p.err == nil && len(p.words) > 0 {
		p.fail("unexpected %q", short(p.words[0]))
	}
	if p.err != nil {
		return Element{}, fmt.Errorf("parse element %q of %s: %w", short(text), s.Name, p.err)
	}
	return e, nil
}

// parser reads words. After the first error it reads nothing more.
type parser struct {
	words []string
	err   error
}

// newParser splits the text into words at spaces; a word in quotes keeps its first quote, to be told from the others.
func newParser(text string) (*parser, error) {
	p := &parser{}
	for rest := strings.TrimSpace(text); rest != ""; rest = strings.TrimLeft(rest, " \t") {
		if rest[0] == '"' {
			word, after, ok := strings.Cut(rest[1:], `"`)
			if !ok {
				return nil, fmt.Errorf("quote in %q is not closed", short(rest))
			}
			p.words, rest = append(p.words, `"`+word), after
			continue
		}
		i := strings.IndexAny(rest, " \t")
		if i < 0 {
			i = len(rest)
		}
		p.words, rest = append(p.words, rest[:i]), rest[i:]
	}
	return p, nil
}

// short bounds foreign text in an error.
func short(s string) string {
	const most = 80
	if len(s) > most {
		return s[:most] + "..."
	}
	return s
}

func (p *parser) fail(format string, args ...any) {
	if p.err == nil {
		p.err = fmt.Errorf(format, args...)
	}
}

// next returns the next word.
func (p *parser) next() string {
	if p.err != nil {
		return ""
	}
	if len(p.words) == 0 {
		p.err = errEnd
		return ""
	}
	w := p.words[0]
	p.words = p.words[1:]
	return w
}

// have consumes the words if they are next.
func (p *parser) have(words ...string) bool {
	if p.err != nil || len(p.words) < len(words) {
		return false
	}
	for i, w := range words {
		if p.words[i] != w {
			return false
		}
	}
	p.words = p.words[len(words):]
	return true
}

func (p *parser) expect(words ...string) {
	if !p.have(words...) && p.err == nil {
		p.fail("want %q, have %q", strings.Join(words, " "), short(strings.Join(p.words, " ")))
	}
}

// peek returns the next word without consuming it, "" at the end.
func (p *parser) peek() string {
	if p.err != nil || len(p.words) == 0 {
		return ""
	}
	return p.words[0]
}

func (p *parser) name() string {
	w := p.next()
	if p.err == nil && !validName(w) {
		p.fail("name %q: want a letter, then letters, digits and any of / \\ _ . -", short(w))
	}
	return w
}

// validName is the lexer's rule for names of tables, chains and sets.
func validName(w string) bool {
	if w == "" || len(w) > 255 {
		return false
	}
	for i, c := range []byte(w) {
		letter := c|0x20 >= 'a' && c|0x20 <= 'z'
		if !letter && (i == 0 || (c < '0' || c > '9') && !strings.ContainsRune(`/\_.-`, rune(c))) {
			return false
		}
	}
	return true
}

func (p *parser) number(limit uint64) uint32 {
	w := p.next()
	if p.err != nil {
		return 0
	}
	n, err := strconv.ParseUint(w, 0, 32)
	if err != nil || n > limit {
		p.fail("%q is not a number from 0 to %d", short(w), limit)
	}
	return uint32(n)
}

func (p *parser) seconds() uint32 {
	w := p.next()
	digits, ok := strings.CutSuffix(w, "s")
	n, err := strconv.ParseUint(digits, 10, 32)
	if p.err == nil && (!ok || err != nil || n == 0) {
		p.fail("time %q: want a number of seconds, as 10800s", short(w))
	}
	return uint32(n)
}

func (p *parser) quoted() string {
	w := p.next()
	s, ok := strings.CutPrefix(w, `"`)
	if !ok {
		p.fail("want a word in quotes, have %q", short(w))
	}
	return s
}

// set reads a reference to a set.
func (p *parser) set() string {
	w := p.next()
	s, ok := strings.CutPrefix(w, "@")
	if p.err == nil && (!ok || !validName(s)) {
		p.fail("want @ and the name of a set, have %q", short(w))
	}
	return s
}

// wordNumber reads a number or its name.
func (p *parser) wordNumber(words []word, limit uint64) uint32 {
	for _, w := range words {
		if p.have(w.name) {
			return w.num
		}
	}
	return p.number(limit)
}

func (p *parser) bits(words []word) uint32 {
	var n uint32
	for w := range strings.SplitSeq(p.next(), ",") {
		one := parser{words: []string{w}, err: p.err}
		n |= one.wordNumber(words, math.MaxUint32)
		p.err = one.err
	}
	return n
}

func (p *parser) prefix(f Field) netip.Prefix {
	w := p.next()
	if p.err != nil {
		return netip.Prefix{}
	}
	x, err := netip.ParsePrefix(w)
	if a, errAddr := netip.ParseAddr(w); errAddr == nil && a.Zone() == "" {
		x, err = netip.PrefixFrom(a, a.BitLen()), nil
	}
	if err != nil || x.Masked() != x || x.Addr().Is4() != (f.Type() == IPv4Addr) {
		p.fail("%s %q: want an address or a prefix of that family without host bits", f, short(w))
	}
	return x
}

func (p *parser) value(t Type) Value {
	switch t {
	case IPv4Addr, IPv6Addr:
		return Value{Addr: p.addr(t, p.next())}
	case InetProto:
		return Value{Num: p.wordNumber(protoWords, math.MaxUint8)}
	case InetService:
		return Value{Num: p.number(math.MaxUint16)}
	case IfName:
		return Value{Name: p.ifName()}
	}
	return Value{Num: p.number(math.MaxUint32)}
}

func (p *parser) ifName() string {
	w := p.quoted()
	if p.err == nil && (w == "" || len(w) > 15 || strings.IndexFunc(w, func(r rune) bool { return r <= ' ' || r > '~' || r == '\\' }) >= 0) {
		p.fail("interface name %q: want 1 to 15 printable bytes", short(w))
	}
	return w
}

func (p *parser) addr(t Type, w string) netip.Addr {
	if p.err != nil {
		return netip.Addr{}
	}
	a, err := netip.ParseAddr(w)
	if err != nil || a.Zone() != "" || a.Is4() != (t == IPv4Addr) {
		p.fail("%q is no %s", short(w), t)
		return netip.Addr{}
	}
	return a
}
