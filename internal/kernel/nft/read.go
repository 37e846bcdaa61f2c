package nft

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"weft/internal/nft"
)

// errInterrupted says that the ruleset changed while it was read.
var errInterrupted = errors.New("the ruleset changed while it was read")

// readTries is how often Read begins anew when the ruleset changes meanwhile.
const readTries = 20

// Read returns the table as it is in the kernel, in canonical form, or nil when there is none. Rules that this package does not make
// hold a nft.Foreign; sets of unknown types have no key types. Elements of dynamic sets are left out: they are no part of a plan.
func (c *Conn) Read(family nft.Family, name string) (*nft.Table, error) {
	return c.read(family, name, func(s *nft.Set) ([]nft.Element, error) { return c.elements(family, name, s) })
}

// Outline returns what Read returns without the elements of sets: of a large table they are nearly everything.
func (c *Conn) Outline(family nft.Family, name string) (*nft.Table, error) {
	return c.read(family, name, func(*nft.Set) ([]nft.Element, error) { return nil, nil })
}

// read reads a table, and the elements of each set by the function.
func (c *Conn) read(family nft.Family, name string, elements func(*nft.Set) ([]nft.Element, error)) (*nft.Table, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for range readTries {
		r := reader{c: c, family: family, table: name, t: nft.Table{Family: family, Name: name}, chains: map[string]int{}}
		found, err := r.read(elements)
		switch {
		case errors.Is(err, errInterrupted):
			continue
		case errors.Is(err, unix.ENOENT) && found: // gone while we read
			continue
		case err != nil:
			return nil, fmt.Errorf("read nf_tables table %s %s: %w", family, name, err)
		case !found:
			return nil, nil
		}
		r.t.SortNames()
		return &r.t, nil
	}
	return nil, fmt.Errorf("read nf_tables table %s %s: %w, %d times", family, name, errInterrupted, readTries)
}

type reader struct {
	c      *Conn
	family nft.Family
	table  string
	t      nft.Table
	chains map[string]int // index by name
}

func (r *reader) read(elements func(*nft.Set) ([]nft.Element, error)) (found bool, err error) {
	ours := func(a *attrs, typ int) bool { return text(a[typ]) == r.table }
	err = r.dump(unix.NFT_MSG_GETTABLE, nil, func(a *attrs) error {
		found = found || ours(a, unix.NFTA_TABLE_NAME)
		return nil
	})
	if err != nil || !found {
		return found, err
	}
	err = r.dump(unix.NFT_MSG_GETCHAIN, nil, func(a *attrs) error {
		if ours(a, unix.NFTA_CHAIN_TABLE) {
			c := decodeChain(a)
			r.chains[c.Name] = len(r.t.Chains)
			r.t.Chains = append(r.t.Chains, c)
		}
		return nil
	})
	if err != nil {
		return found, err
	}
	of := func(typ uint16) func(b *buf) { return func(b *buf) { b.str(typ, r.table) } }
	err = r.dump(unix.NFT_MSG_GETRULE, of(unix.NFTA_RULE_TABLE), func(a *attrs) error {
		if ours(a, unix.NFTA_RULE_TABLE) {
			return r.rule(a)
		}
		return nil
	})
	if err != nil {
		return found, err
	}
	err = r.dump(unix.NFT_MSG_GETSET, of(unix.NFTA_SET_TABLE), func(a *attrs) error {
		if ours(a, unix.NFTA_SET_TABLE) {
			r.t.Sets = append(r.t.Sets, decodeSet(a))
		}
		return nil
	})
	if err != nil {
		return found, err
	}
	return found, r.elements(elements)
}

// elements reads the elements of the sets, those with lists last: see planReader.
func (r *reader) elements(read func(*nft.Set) ([]nft.Element, error)) (err error) {
	for _, lists := range []bool{false, true} {
		for i := range r.t.Sets {
			s := &r.t.Sets[i]
			if s.Dynamic || len(s.Key) == 0 || numbered(s) != lists {
				continue
			}
			if s.Elements, err = read(s); err != nil {
				return err
			}
		}
	}
	return nil
}

// dump asks for all objects of a kind and calls f with the attributes of each.
func (r *reader) dump(typ uint16, filter func(b *buf), f func(*attrs) error) error {
	return r.c.dump(typ, r.family, filter, func(m message) error {
		a, _, err := parse(m.data[nfgenmsg:])
		if err != nil {
			return err
		}
		return f(&a)
	})
}

// dump sends a request and calls f with each message of the answer.
func (c *Conn) dump(typ uint16, family nft.Family, filter func(b *buf), f func(message) error) error {
	if err := c.drain(); err != nil {
		return err
	}
	c.seq++
	var b buf
	at := b.header(subsystem|typ, unix.NLM_F_DUMP, c.seq, families[family])
	if filter != nil {
		filter(&b)
	}
	b.close(at)
	if err := c.send(b); err != nil {
		return fmt.Errorf("send: %w", err)
	}
	done, interrupted := false, false
	for !done {
		d, err := c.receive(0)
		if err != nil {
			return fmt.Errorf("receive: %w", err)
		}
		err = split(d, func(m message) error {
			if m.seq != c.seq {
				return nil
			}
			interrupted = interrupted || m.flags&unix.NLM_F_DUMP_INTR != 0
			switch {
			case m.typ == unix.NLMSG_DONE:
				done = true
				return doneError(m)
			case m.typ == unix.NLMSG_ERROR:
				done = true
				if r := refused(m); r != nil {
					return r
				}
				return nil
			case len(m.data) < nfgenmsg:
				return errMalformed
			}
			return f(m)
		})
		if err != nil {
			return err
		}
	}
	if interrupted {
		return errInterrupted
	}
	return nil
}

// doneError is the error with which a dump ends early.
func doneError(m message) error {
	if len(m.data) < 4 {
		return nil
	}
	switch code := int32(native.Uint32(m.data)); {
	case code == 0:
		return nil
	case unix.Errno(-code) == unix.EINTR:
		return errInterrupted
	default:
		return unix.Errno(-code)
	}
}

func decodeChain(a *attrs) nft.Chain {
	c := nft.Chain{Name: text(a[unix.NFTA_CHAIN_NAME])}
	if a[unix.NFTA_CHAIN_HOOK] == nil {
		return c
	}
	h, _, err := parse(a[unix.NFTA_CHAIN_HOOK])
	if err != nil {
		return c
	}
	c.Base = nft.Base{
		Type:     nft.ChainType(text(a[unix.NFTA_CHAIN_TYPE])),
		Priority: int(int32(number(h[unix.NFTA_HOOK_PRIORITY]))),
		Drop:     a[unix.NFTA_CHAIN_POLICY] != nil && number(a[unix.NFTA_CHAIN_POLICY]) == 0,
	}
	hook := uint32(number(h[unix.NFTA_HOOK_HOOKNUM]))
	for name, n := range hooks {
		if n == hook {
			c.Base.Hook = name
		}
	}
	return c
}

func (r *reader) rule(a *attrs) error {
	i, ok := r.chains[text(a[unix.NFTA_RULE_CHAIN])]
	if !ok {
		return errInterrupted
	}
	all, err := parseExpressions(a[unix.NFTA_RULE_EXPRESSIONS])
	if err != nil {
		return err
	}
	rule := nft.Rule{Statements: statements(r.family, all), Comment: decodeComment(a[unix.NFTA_RULE_USERDATA])}
	r.t.Chains[i].Rules = append(r.t.Chains[i].Rules, rule)
	return nil
}

// decodeComment finds the comment among what user space keeps with a rule.
func decodeComment(b []byte) string {
	for len(b) >= 2 {
		n := 2 + int(b[1])
		if n > len(b) {
			return ""
		}
		if b[0] == 0 {
			return text(b[2:n])
		}
		b = b[n:]
	}
	return ""
}

func decodeSet(a *attrs) nft.Set {
	s := nft.Set{Name: text(a[unix.NFTA_SET_NAME])}
	flags := uint32(number(a[unix.NFTA_SET_FLAGS]))
	s.Interval, s.Dynamic = flags&flagInterval != 0, flags&flagDynamic != 0
	s.Timeout = uint32(number(a[unix.NFTA_SET_TIMEOUT]) / 1000)
	if d, _, err := parse(a[unix.NFTA_SET_DESC]); err == nil {
		s.Size = uint32(number(d[unix.NFTA_SET_DESC_SIZE]))
	}
	s.Key = decodeTypes(uint32(number(a[unix.NFTA_SET_KEY_TYPE])))
	if flags&flagMap != 0 {
		if id := uint32(number(a[unix.NFTA_SET_DATA_TYPE])); id == typeVerdict {
			s.Verdicts = true
		} else {
			s.Data = decodeTypes(id)
		}
	}
	// What these values can't say makes the set foreign.
	if setFlags(s) != flags || typesLen(s.Key) != uint32(number(a[unix.NFTA_SET_KEY_LEN])) ||
		!s.Verdicts && typesLen(s.Data) != uint32(number(a[unix.NFTA_SET_DATA_LEN])) || flags&flagMap != 0 != s.Map() {
		s.Key, s.Data = nil, nil
	}
	return s
}

func decodeTypes(id uint32) []nft.Type {
	var out []nft.Type
	for ; id != 0; id >>= typeBits {
		t := typeOf(id & (1<<typeBits - 1))
		if t == 0 {
			return nil
		}
		out = append([]nft.Type{t}, out...)
	}
	return out
}

func typeOf(id uint32) nft.Type {
	for t, n := range typeIDs {
		if n == id && t != 0 {
			return nft.Type(t)
		}
	}
	return 0
}

type elementReader struct {
	set  *nft.Set
	out  []nft.Element
	ends []nft.Tuple // interval sets of one component: first keys behind a range
	arena
}

// arena makes strings of many small byte slices with few allocations.
type arena struct{ b strings.Builder }

func (a *arena) tuple(v []byte) nft.Tuple {
	if a.b.Len()+len(v)+4 > a.b.Cap() {
		a.b = strings.Builder{}
		a.b.Grow(16 << 10)
	}
	at := a.b.Len()
	a.b.Write(v)
	a.b.WriteString("\x00\x00\x00"[:align(len(v))-len(v)])
	return nft.Tuple(a.b.String()[at:])
}

// plain returns the value within a nested attribute that holds data.
func plain(v []byte) []byte {
	if len(v) >= 4 && native.Uint16(v[2:])&^uint16(nested) == unix.NFTA_DATA_VALUE {
		return v[4:min(max(int(native.Uint16(v)), 4), len(v))]
	}
	return nil
}

func (r *elementReader) element(v []byte) error {
	var e nft.Element
	end := false
	err := attributes(v, func(typ uint16, v []byte) error {
		switch typ {
		case unix.NFTA_SET_ELEM_KEY:
			e.Key = r.tuple(plain(v))
		case keyEnd:
			e.KeyEnd = r.tuple(plain(v))
		case unix.NFTA_SET_ELEM_DATA:
			if r.set.Verdicts {
				e.Verdict, _ = decodeVerdict(v)
			} else {
				e.Data = r.tuple(plain(v))
			}
		case unix.NFTA_SET_ELEM_FLAGS:
			end = number(v)&unix.NFT_SET_ELEM_INTERVAL_END != 0
		}
		return nil
	})
	switch {
	case err != nil:
		return err
	case end:
		r.ends = append(r.ends, e.Key)
		return nil
	case e.KeyEnd == e.Key:
		e.KeyEnd = ""
	}
	r.out = append(r.out, e)
	return nil
}
