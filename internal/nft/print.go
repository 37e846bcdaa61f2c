package nft

import (
	"strconv"
	"strings"
)

func (v Verdict) String() string {
	switch v.Kind {
	case Jump:
		return "jump " + v.Chain
	case Goto:
		return "goto " + v.Chain
	}
	return [...]string{"continue", "accept", "drop", "return"}[v.Kind]
}

func (m Match) String() string {
	s := m.Field.String()
	if m.Mask != 0 {
		s += " & " + hex(m.Mask)
	}
	switch {
	case m.Not:
		s += " != "
	case m.Mask != 0:
		s += " == "
	default:
		s += " "
	}
	return s + m.value()
}

func (m Match) value() string {
	switch m.Field {
	case IIFName, OIFName:
		return quote(m.Name)
	case MetaMark, CtMark:
		return hex(m.Num)
	case CtState, CtStatus:
		return bitsText(bitWords[m.Field], m.Num)
	case IPSaddr, IPDaddr, IP6Saddr, IP6Daddr:
		return prefixText(m.Prefix)
	}
	return wordOf(numberWords[m.Field], m.Num)
}

func keyText(key []Expr) string {
	var b strings.Builder
	for i, e := range key {
		if i > 0 {
			b.WriteString(" . ")
		}
		b.WriteString(e.String())
	}
	return b.String()
}

func (l Lookup) String() string {
	if l.Not {
		return keyText(l.Key) + " != @" + l.Set
	}
	return keyText(l.Key) + " @" + l.Set
}

func (m VMap) String() string { return keyText(m.Key) + " vmap @" + m.Map }

func (d DNAT) String() string {
	s := "dnat ip to "
	if d.V6 {
		s = "dnat ip6 to "
	}
	if d.Map == "" {
		return s + d.To.String()
	}
	return s + keyText(d.Key) + " map @" + d.Map
}

func (k KeepSource) String() string {
	if k.V6 {
		return "snat ip6 to ip6 saddr"
	}
	return "snat ip to ip saddr"
}

func (m Masquerade) String() string {
	if m.FullyRandom {
		return "masquerade fully-random"
	}
	return "masquerade"
}

func (r Reject) String() string { return "reject with " + string(r.With) }

// String is "notrack".
func (Notrack) String() string { return "notrack" }

// String is "counter".
func (Counter) String() string { return "counter" }

func (m SetMark) String() string {
	const set = "meta mark set "
	switch {
	case m.Mask == ^uint32(0):
		return set + hex(m.Value)
	case m.Mask == m.Value:
		return set + "meta mark | " + hex(m.Value)
	case m.Mask == 0:
		return set + "meta mark ^ " + hex(m.Value)
	case m.Value == 0:
		return set + "meta mark & " + hex(^m.Mask)
	}
	return set + "meta mark & " + hex(^m.Mask) + " ^ " + hex(m.Value)
}

func (u Update) String() string {
	s := "update @" + u.Set + " { " + keyText(u.Key)
	if u.Timeout != 0 {
		s += " timeout " + seconds(u.Timeout)
	}
	switch {
	case u.To.IsValid():
		s += " : " + u.To.Addr().String() + " . " + strconv.Itoa(int(u.To.Port()))
	case len(u.Data) > 0:
		s += " : " + keyText(u.Data)
	}
	return s + " }"
}

func (f Foreign) String() string { return f.Text }

func seconds(n uint32) string { return strconv.FormatUint(uint64(n), 10) + "s" }

// quote puts text in quotes. nft(8) knows no escapes: what it could not read is replaced.
func quote(s string) string {
	return `"` + strings.Map(func(r rune) rune {
		switch {
		case r == '"':
			return '\''
		case r < ' ' || r == 0x7f:
			return '?'
		}
		return r
	}, s) + `"`
}

// String is the rule on one line, its comment last.
func (r Rule) String() string {
	words := make([]string, 0, len(r.Statements)+1)
	for _, s := range r.Statements {
		words = append(words, s.String())
	}
	if r.Comment != "" {
		words = append(words, "comment "+quote(r.Comment))
	}
	return strings.Join(words, " ")
}

// String is the line that makes a base chain of a chain.
func (b Base) String() string {
	policy := "accept"
	if b.Drop {
		policy = "drop"
	}
	return "type " + string(b.Type) + " hook " + string(b.Hook) + " priority " + strconv.Itoa(b.Priority) + "; policy " + policy + ";"
}

// String is the chain as a block of a table.
func (c Chain) String() string {
	var b strings.Builder
	b.WriteString("\tchain " + c.Name + " {\n")
	if c.Base != (Base{}) {
		b.WriteString("\t\t" + c.Base.String() + "\n")
	}
	for _, r := range c.Rules {
		b.WriteString("\t\t" + r.String() + "\n")
	}
	b.WriteString("\t}\n")
	return b.String()
}

// declaration is the set's block without elements and closing brace.
func (s Set) declaration(indent string) string {
	kind := "set "
	if s.Map() {
		kind = "map "
	}
	out := indent + kind + s.Name + " {\n" + indent + "\t" + s.types() + "\n"
	var flags []string
	if s.Interval {
		flags = append(flags, "interval")
	}
	if s.Dynamic {
		flags = append(flags, "dynamic")
	}
	if s.Dynamic || s.Timeout != 0 {
		flags = append(flags, "timeout")
	}
	if len(flags) > 0 {
		out += indent + "\tflags " + strings.Join(flags, ",") + "\n"
	}
	if s.Timeout != 0 {
		out += indent + "\ttimeout " + seconds(s.Timeout) + "\n"
	}
	if s.Size != 0 {
		out += indent + "\tsize " + strconv.FormatUint(uint64(s.Size), 10) + "\n"
	}
	return out
}

// types is the line that declares the types. Where NumGen is among them only typeof can name it.
func (s Set) types() string {
	words := typeWords[:]
	line := "type "
	for _, t := range s.Key {
		if t == NumGen {
			words, line = typeofWords[:], "typeof "
		}
	}
	line += joinTypes(words, s.Key)
	switch {
	case s.Verdicts:
		line += " : verdict"
	case len(s.Data) > 0:
		line += " : " + joinTypes(words, s.Data)
	}
	return line
}

func joinTypes(words []string, types []Type) string {
	out := make([]string, len(types))
	for i, t := range types {
		out[i] = words[t]
	}
	return strings.Join(out, " . ")
}

// String is the set as a block of a table, one element a line.
func (s Set) String() string {
	var b strings.Builder
	b.WriteString(s.declaration("\t"))
	for i, e := range s.Elements {
		b.WriteString("\t\t")
		if i == 0 {
			b.WriteString("elements = { ")
		} else {
			b.WriteString("\t     ")
		}
		b.WriteString(s.ElementText(e))
		if i < len(s.Elements)-1 {
			b.WriteString(",\n")
		} else {
			b.WriteString(" }\n")
		}
	}
	b.WriteString("\t}\n")
	return b.String()
}

// ElementText is an element of the set as nft(8) writes it.
func (s Set) ElementText(e Element) string {
	b := make([]byte, 0, 64)
	switch {
	case e.Key == "": // somebody else's: the element for all other keys
		b = append(b, '*')
	case e.KeyEnd == "":
		b = e.Key.appendText(b, s.Key)
	default:
		b = appendRange(b, s.Key, e.Key, e.KeyEnd)
	}
	switch {
	case s.Verdicts:
		b = append(append(b, " : "...), e.Verdict.String()...)
	case len(s.Data) > 0:
		b = e.Data.appendText(append(b, " : "...), s.Data)
	}
	return string(b)
}

// appendRange appends a key whose components may be ranges.
func appendRange(b []byte, types []Type, from, to Tuple) []byte {
	first, last := from.Values(types), to.Values(types)
	for i := range min(len(first), len(last)) {
		if i > 0 {
			b = append(b, " . "...)
		}
		b = appendValue(b, types[i], first[i])
		if first[i] != last[i] {
			b = appendValue(append(b, '-'), types[i], last[i])
		}
	}
	return b
}

// String is the table as a block that "nft -f" reads.
func (t Table) String() string {
	var b strings.Builder
	b.WriteString("table " + string(t.Family) + " " + t.Name + " {\n")
	for i, s := range t.Sets {
		if i > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(s.String())
	}
	for i, c := range t.Chains {
		if i > 0 || len(t.Sets) > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(c.String())
	}
	b.WriteString("}\n")
	return b.String()
}
