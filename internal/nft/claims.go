package nft

import (
	"slices"
	"strings"
)

// setClaims is a set with who wants what in it.
type setClaims struct {
	declaration variants[Set]
	elements    map[Tuple]*claims // by key and, of ranges, last key
	touched     []*claims         // by the update under way, in order
}

func elementKey(e *Element) Tuple {
	if e.KeyEnd == "" {
		return e.Key
	}
	return e.Key + e.KeyEnd
}

// claims are the owners that want an element, in order of name; the first one gets it.
type claims struct {
	owner   string
	element *Element // nil: nobody, until the update ends
	rest    []claim  // of the others, nearly always none
	before  *Element // during an update: what was there before it
	touched bool
}

type claim struct {
	owner   string
	element *Element
}

func (c *claims) get() *Element {
	if c == nil {
		return nil
	}
	return c.element
}

func (c *claims) add(owner string, e *Element) {
	switch {
	case c.element == nil:
		c.owner, c.element = owner, e
		return
	case owner >= c.owner:
		c.rest = append(c.rest, claim{owner, e})
	default:
		c.rest = append(c.rest, claim{c.owner, c.element})
		c.owner, c.element = owner, e
	}
	slices.SortStableFunc(c.rest, func(a, b claim) int { return strings.Compare(a.owner, b.owner) })
}

func (c *claims) remove(owner string, e *Element) {
	if c.owner != owner || c.element != e {
		if i := slices.Index(c.rest, claim{owner, e}); i >= 0 {
			c.rest = slices.Delete(c.rest, i, i+1)
		}
		return
	}
	c.owner, c.element = "", nil
	if len(c.rest) > 0 {
		c.owner, c.element = c.rest[0].owner, c.rest[0].element
		c.rest = slices.Delete(c.rest, 0, 1)
	}
}

// touch remembers an element as it was before the update.
func (c *setClaims) touch(e *claims) {
	if !e.touched {
		e.touched, e.before = true, e.element
		c.touched = append(c.touched, e)
	}
}

// settle ends an update: elements that nobody wants any more go.
func (c *setClaims) settle() {
	for _, e := range c.touched {
		if e.element == nil && e.before != nil {
			delete(c.elements, elementKey(e.before))
		}
		e.touched, e.before = false, nil
	}
	c.touched = nil
}

func (c *setClaims) count(owner string, s *Set, n int) {
	declaration := *s
	declaration.Elements = nil
	c.declaration.add(declaration, n, sameDeclaration, declarationText)
	var fresh []claims // room for new ones, made once
	for i := range s.Elements {
		e := &s.Elements[i]
		key := elementKey(e)
		x := c.elements[key]
		if x == nil {
			if len(fresh) == 0 {
				fresh = make([]claims, len(s.Elements)-i)
			}
			x, fresh = &fresh[0], fresh[1:]
			c.elements[key] = x
		} else if n > 0 && x.element == nil {
			c.elements[key] = x // with the new key's memory: the old may be part of a larger text
		}
		c.touch(x)
		if n > 0 {
			x.add(owner, e)
		} else {
			x.remove(owner, e)
		}
	}
}
