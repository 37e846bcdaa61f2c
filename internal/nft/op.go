package nft

import (
	"slices"
	"strings"
)

// Verb is what an Op does to its object.
type Verb uint8

// The verbs. Change gives a chain its rules, or elements of a map other values.
const (
	Add Verb = iota
	Change
	Del
)

// Kind is the kind of object an Op is about.
type Kind uint8

// The kinds of objects.
const (
	KindTable    Kind = iota
	KindChain         // a chain without its rules
	KindRules         // the rules of a chain, all of them
	KindSet           // a set or map without its elements
	KindElements      // elements of a set or map
)

// Op is one step that brings a table nearer to the wanted one. It prints as the nft(8) commands that do it.
type Op struct {
	Verb   Verb
	Kind   Kind
	Family Family
	Table  string
	Chain  Chain // KindChain: name and base. KindRules: name, base and the rules it gets
	Set    Set   // KindSet: all but the elements. KindElements: the elements, and the types they have
}

// Count is the number of objects the op touches: elements count one each.
func (o Op) Count() int {
	if o.Kind == KindElements {
		return len(o.Set.Elements)
	}
	return 1
}

// String is the op as commands for "nft -f", joined with "; ". Of many elements only the first ones are shown.
func (o Op) String() string {
	const most = 16
	return strings.Join(o.commands(most), "; ")
}

// Commands returns the commands for "nft -f" that do what the op does, with all elements.
func (o Op) Commands() []string { return o.commands(len(o.Set.Elements)) }

func (o Op) commands(most int) []string {
	at := string(o.Family) + " " + o.Table
	verb := [...]string{"add", "add", "delete"}[o.Verb]
	switch o.Kind {
	case KindTable:
		return []string{verb + " table " + at}
	case KindChain:
		s := verb + " chain " + at + " " + o.Chain.Name
		if o.Verb != Del && o.Chain.Base != (Base{}) {
			s += " { " + o.Chain.Base.String() + " }"
		}
		return []string{s}
	case KindRules:
		out := []string{"flush chain " + at + " " + o.Chain.Name}
		for _, r := range o.Chain.Rules {
			out = append(out, "add rule "+at+" "+o.Chain.Name+" "+r.String())
		}
		return out
	case KindSet:
		return []string{o.setCommand(verb, at)}
	}
	if o.Verb == Change {
		return []string{o.elements("delete", at, most), o.elements("add", at, most)}
	}
	return []string{o.elements(verb, at, most)}
}

func (o Op) setCommand(verb, at string) string {
	kind := "set "
	if o.Set.Map() {
		kind = "map "
	}
	s := verb + " " + kind + at + " " + o.Set.Name
	if o.Verb == Del {
		return s
	}
	_, body, _ := strings.Cut(o.Set.declaration(""), "{\n\t")
	return s + " { " + strings.ReplaceAll(strings.TrimSuffix(body, "\n"), "\n\t", "; ") + "; }"
}

// elements is one command; deletion names the keys only.
func (o Op) elements(verb, at string, most int) string {
	show := o.Set
	if verb == "delete" {
		show.Verdicts, show.Data = false, nil
	}
	var b strings.Builder
	b.WriteString(verb + " element " + at + " " + o.Set.Name + " { ")
	for i, e := range o.Set.Elements {
		if i == most {
			b.WriteString(", ...")
			break
		}
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(show.ElementText(e))
	}
	b.WriteString(" }")
	return b.String()
}

// Sort brings the table into canonical form: chains and sets in order of name, elements in order of key.
func (t *Table) Sort() {
	t.SortNames()
	for i := range t.Sets {
		t.Sets[i].Sort()
	}
}

// SortNames brings chains and sets in order of name, and leaves elements as they are.
func (t *Table) SortNames() {
	slices.SortFunc(t.Chains, func(a, b Chain) int { return strings.Compare(a.Name, b.Name) })
	slices.SortFunc(t.Sets, func(a, b Set) int { return strings.Compare(a.Name, b.Name) })
}

// Sort brings the elements in order of key.
func (s *Set) Sort() {
	if !slices.IsSortedFunc(s.Elements, compareElements) {
		slices.SortFunc(s.Elements, compareElements)
	}
}

func compareElements(a, b Element) int {
	if c := strings.Compare(string(a.Key), string(b.Key)); c != 0 {
		return c
	}
	return strings.Compare(string(a.KeyEnd), string(b.KeyEnd))
}

// Apply returns the table after the ops, in canonical form; nil stands for a table that does not exist. Deleting the table drops
// all that is in it, and adding objects brings it back.
func Apply(t *Table, ops ...Op) *Table {
	m := mapped(t)
	for _, o := range ops {
		m.apply(o)
	}
	return m.table()
}

// tableMaps is a table by name and key.
type tableMaps struct {
	family Family
	name   string
	exists bool
	chains map[string]Chain
	sets   map[string]Set
	elems  map[string]map[[2]Tuple]Element
}

func mapped(t *Table) *tableMaps {
	m := &tableMaps{chains: map[string]Chain{}, sets: map[string]Set{}, elems: map[string]map[[2]Tuple]Element{}}
	if t == nil {
		return m
	}
	m.family, m.name, m.exists = t.Family, t.Name, true
	for _, c := range t.Chains {
		m.chains[c.Name] = c
	}
	for _, s := range t.Sets {
		m.elems[s.Name] = make(map[[2]Tuple]Element, len(s.Elements))
		for _, e := range s.Elements {
			m.elems[s.Name][[2]Tuple{e.Key, e.KeyEnd}] = e
		}
		s.Elements = nil
		m.sets[s.Name] = s
	}
	return m
}

func (m *tableMaps) table() *Table {
	if !m.exists {
		return nil
	}
	t := &Table{Family: m.family, Name: m.name}
	for _, c := range m.chains {
		t.Chains = append(t.Chains, c)
	}
	for name, s := range m.sets {
		for _, e := range m.elems[name] {
			s.Elements = append(s.Elements, e)
		}
		t.Sets = append(t.Sets, s)
	}
	t.Sort()
	return t
}

func (m *tableMaps) apply(o Op) {
	if o.Verb == Del {
		m.del(o)
		return
	}
	m.family, m.name, m.exists = o.Family, o.Table, true
	switch o.Kind {
	case KindChain:
		c := m.chains[o.Chain.Name]
		c.Name, c.Base = o.Chain.Name, o.Chain.Base
		m.chains[c.Name] = c
	case KindRules:
		c := m.chains[o.Chain.Name]
		c.Rules = o.Chain.Rules
		m.chains[c.Name] = c
	case KindSet:
		s := o.Set
		s.Elements = nil
		m.sets[s.Name] = s
		if m.elems[s.Name] == nil {
			m.elems[s.Name] = map[[2]Tuple]Element{}
		}
	case KindElements:
		for _, e := range o.Set.Elements {
			m.elems[o.Set.Name][[2]Tuple{e.Key, e.KeyEnd}] = e
		}
	}
}

func (m *tableMaps) del(o Op) {
	switch o.Kind {
	case KindTable:
		*m = *mapped(nil)
	case KindChain:
		delete(m.chains, o.Chain.Name)
	case KindSet:
		delete(m.sets, o.Set.Name)
		delete(m.elems, o.Set.Name)
	case KindElements:
		for _, e := range o.Set.Elements {
			delete(m.elems[o.Set.Name], [2]Tuple{e.Key, e.KeyEnd})
		}
	}
}
