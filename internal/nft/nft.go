// Package nft holds nftables rulesets as typed values: tables, chains, rules as lists of statements, sets and maps with their
// elements. They print in the syntax of nft(8), parse back, compare (Diff), merge (Merge) and answer about packets (Walk).
// It knows nothing of netlink: internal/kernel/nft carries the values to the kernel and back.
//
// Floor 1, values: no I/O, no clock.
package nft

// Family is the address family of a table (nft(8), "ADDRESS FAMILIES").
type Family string

// The families.
const (
	INet Family = "inet"
	IPv4 Family = "ip"
	IPv6 Family = "ip6"
)

// TableName is the name of the one table weft owns, of family INet: the mark by which it knows its rules again.
const TableName = "weft"

// Table is a table or a fragment of one: what one owner wants in it. In canonical form (Table.Sort) chains and sets are in order of
// name and elements in order of key; order of rules counts.
type Table struct {
	Family Family
	Name   string
	Chains []Chain
	Sets   []Set // sets and maps: the kernel has one namespace for both
}

// New returns the empty table weft owns.
func New() Table { return Table{Family: INet, Name: TableName} }

// ChainType is the type of a base chain.
type ChainType string

// The chain types.
const (
	Filter ChainType = "filter"
	NAT    ChainType = "nat"
	Route  ChainType = "route"
)

// Hook is where a base chain sees packets.
type Hook string

// The hooks of families ip, ip6 and inet.
const (
	Prerouting  Hook = "prerouting"
	Input       Hook = "input"
	Forward     Hook = "forward"
	Output      Hook = "output"
	Postrouting Hook = "postrouting"
)

// The priorities that have names (nft(8), "CHAINS"). Lower ones come first.
const (
	PriorityRaw    = -300
	PriorityMangle = -150
	PriorityDstNAT = -100
	PriorityFilter = 0
	PrioritySrcNAT = 100
)

// Base is what makes a chain a base chain. The zero Base is that of a regular chain.
type Base struct {
	Type     ChainType
	Hook     Hook
	Priority int
	Drop     bool // policy drop; the default is accept
}

// Chain is a chain with its rules. A chain with a zero Base is a regular one, reached by jump and goto.
type Chain struct {
	Name  string
	Base  Base
	Rules []Rule
}

// Rule is a rule: its statements act in order until one does not match.
type Rule struct {
	Statements []Statement
	Comment    string // at most 128 printable bytes without double quotes
}

// Set is a set, a map (Data holds types) or a verdict map (Verdicts).
type Set struct {
	Name     string
	Key      []Type
	Data     []Type // map only: the types of a value
	Verdicts bool   // verdict map
	Interval bool   // elements may be ranges
	Dynamic  bool   // rules add elements; these are the kernel's state and no part of a plan
	Timeout  uint32 // default lifetime of an element in seconds, 0: for ever
	Size     uint32 // most elements, 0: no limit. Not compared unless Dynamic: who writes the set gives it room and more when it is full
	Elements []Element
}

// Map reports whether the set maps keys to something.
func (s Set) Map() bool { return s.Verdicts || len(s.Data) > 0 }

// Element is a member of a set. Which fields count depends on the set.
type Element struct {
	Key     Tuple
	KeyEnd  Tuple   // interval sets: the last key of the range, "" when the element is the single key
	Data    Tuple   // maps
	Verdict Verdict // verdict maps
}

// Chain returns the chain with the name, or nil.
func (t *Table) Chain(name string) *Chain {
	for i := range t.Chains {
		if t.Chains[i].Name == name {
			return &t.Chains[i]
		}
	}
	return nil
}

// Set returns the set or map with the name, or nil.
func (t *Table) Set(name string) *Set {
	for i := range t.Sets {
		if t.Sets[i].Name == name {
			return &t.Sets[i]
		}
	}
	return nil
}

// maxComment is the longest comment nft(8) allows, in bytes.
const maxComment = 128
