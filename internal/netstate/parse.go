package netstate

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// Parse reads what an object's String prints: Parse(o.Kind(), o.String()) equals o. The error names the word that is wrong.
func Parse(kind Kind, text string) (Object, error) {
	p := parser{kind: kind, text: text}
	p.split()
	var o Object
	switch kind {
	case KindLink:
		o = p.link()
	case KindSysctl:
		o = p.sysctl()
	case KindAddr:
		o = p.addr()
	case KindNeigh:
		o = p.neigh()
	case KindFDB:
		o = p.fdb()
	case KindRoute:
		o = p.route()
	case KindTunnel:
		o = p.tunnel()
	case KindListener:
		o = p.listener()
	default:
		p.fail("no object of this kind has a text")
	}
	if p.err == nil && len(p.words) > p.at {
		p.fail("unexpected word %q", short(p.words[p.at]))
	}
	if p.err != nil {
		return nil, p.err
	}
	return o, nil
}

// ParseLine reads a line of State.String: the kind's word, then the object's text.
func ParseLine(line string) (Object, error) {
	word, text, _ := strings.Cut(line, " ")
	for k, name := range kindNames {
		if name == word {
			return Parse(Kind(k), text)
		}
	}
	return nil, fmt.Errorf("parse object: unknown kind %q, want one of %s", short(word), strings.Join(kindNames[:], ", "))
}

// parser reads the words of one object. After the first error it reads nothing more.
type parser struct {
	kind  Kind
	text  string
	words []string
	at    int
	err   error
}

// short bounds foreign text in an error.
func short(s string) string {
	const most = 64
	if len(s) > most {
		return s[:most] + "..."
	}
	return s
}

func (p *parser) fail(format string, args ...any) {
	if p.err == nil {
		p.err = fmt.Errorf("parse %s %q: %s", p.kind, short(p.text), fmt.Sprintf(format, args...))
	}
}

// split cuts the text into words at single spaces; a word may be in double quotes, as a link's alias.
func (p *parser) split() {
	for rest := p.text; rest != "" && p.err == nil; {
		if rest[0] == '"' {
			q, err := strconv.QuotedPrefix(rest)
			if err != nil {
				p.fail("quote at %q is not closed", short(rest))
				return
			}
			w, err := strconv.Unquote(q)
			if err != nil {
				p.fail("bad quoted word %q", short(q))
				return
			}
			p.words = append(p.words, w)
			rest = strings.TrimPrefix(rest[len(q):], " ")
			continue
		}
		w, after, _ := strings.Cut(rest, " ")
		if w != "" {
			p.words = append(p.words, w)
		}
		rest = after
	}
}

// next returns the next word; what names it in the error.
func (p *parser) next(what string) string {
	if p.err != nil {
		return ""
	}
	if p.at >= len(p.words) {
		p.fail("%s is missing", what)
		return ""
	}
	p.at++
	return p.words[p.at-1]
}

// have consumes the word if it is next.
func (p *parser) have(word string) bool {
	if p.err == nil && p.at < len(p.words) && p.words[p.at] == word {
		p.at++
		return true
	}
	return false
}

// expect consumes the word or fails.
func (p *parser) expect(word string) {
	if p.err == nil && !p.have(word) {
		p.fail("want %q, have %q", word, short(strings.Join(p.words[p.at:], " ")))
	}
}

// value returns the word after the keyword, or "" when the keyword is not next.
func (p *parser) value(keyword string) string {
	if !p.have(keyword) {
		return ""
	}
	return p.next("value of " + keyword)
}

// num reads an unsigned number of at most limit; the text must be canonical, so that printing gives it back.
func (p *parser) num(word, what string, limit int) int {
	if p.err != nil {
		return 0
	}
	n, err := strconv.Atoi(word)
	if err != nil || n < 0 || n > limit || strconv.Itoa(n) != word {
		p.fail("%s %q is not a number from 0 to %d", what, short(word), limit)
	}
	return n
}

// positive reads the number after the keyword, which is left out for 0.
func (p *parser) positive(keyword string, limit int) int {
	if !p.have(keyword) {
		return 0
	}
	n := p.num(p.next("value of "+keyword), keyword, limit)
	if n == 0 {
		p.fail("%s 0 is the default: leave it out", keyword)
	}
	return n
}

func (p *parser) dev() string {
	w := p.next("device name")
	if p.err == nil && !validDev(w) {
		p.fail("device name %q: want 1 to 15 bytes without space, slash or control characters", short(w))
	}
	return w
}

// validDev is the kernel's dev_valid_name, without what our words can't hold.
func validDev(w string) bool {
	if len(w) == 0 || len(w) > 15 || w == "." || w == ".." {
		return false
	}
	return strings.IndexFunc(w, func(r rune) bool { return r <= ' ' || r == '/' || r == ':' || r == '"' || r > '~' }) < 0
}

func (p *parser) ip(what string) netip.Addr {
	w := p.next(what)
	if p.err != nil {
		return netip.Addr{}
	}
	a, err := netip.ParseAddr(w)
	if err != nil || a.Zone() != "" || a.Is4In6() {
		p.fail("%s %q is not an IP address", what, short(w))
	}
	return a
}

func (p *parser) prefix(what string, masked bool) netip.Prefix {
	w := p.next(what)
	if p.err != nil {
		return netip.Prefix{}
	}
	x, err := netip.ParsePrefix(w)
	switch {
	case err != nil || x.Addr().Is4In6():
		p.fail("%s %q is not an address with a prefix length", what, short(w))
	case masked && x != x.Masked():
		p.fail("%s %q has host bits: want %s", what, short(w), x.Masked())
	}
	return x
}

func (p *parser) addrPort(word, what string) netip.AddrPort {
	if p.err != nil {
		return netip.AddrPort{}
	}
	a, err := netip.ParseAddrPort(word)
	if err != nil || a.Addr().Zone() != "" || a.Addr().Is4In6() {
		p.fail("%s %q is not an address and port", what, short(word))
	}
	return a
}

func (p *parser) mac(what string) string {
	w := p.next(what)
	if p.err == nil && !validMAC(w) {
		p.fail("%s %q is not a MAC address: want six lower-case hex bytes with colons", what, short(w))
	}
	return w
}

// validMAC accepts the one text of an Ethernet address that we print: lower case, six bytes.
func validMAC(w string) bool {
	if len(w) != 17 {
		return false
	}
	for i := range len(w) {
		c := w[i]
		if i%3 == 2 {
			if c != ':' {
				return false
			}
		} else if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// HostMAC reports whether the text is the Ethernet address of one host, in the one form we print: six lower-case hex bytes with colons,
// without the group bit and not all zero.
func HostMAC(s string) bool { return validMAC(s) && !(FDB{MAC: s}).Group() }
