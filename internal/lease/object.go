package lease

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"unicode"
)

// object reads one JSON object field by field. Names are matched without regard to case, as flannel's decoder does; null is
// as good as absent. The first error sticks, so that a reader is a list of fields.
type object struct {
	path   string // "Backend." in front of the field names of errors
	fields map[string]field
	err    error
}

type field struct {
	name string // as written
	raw  json.RawMessage
	used bool
}

// readObject splits data into fields. A field given twice is refused: which of the two is meant nobody can say.
func readObject(path string, data []byte) (*object, error) {
	o := &object{path: path, fields: map[string]field{}}
	dec := json.NewDecoder(bytes.NewReader(data))
	start, err := dec.Token()
	if err != nil {
		return nil, jsonError(data, dec, err)
	}
	if start != json.Delim('{') {
		return nil, fmt.Errorf("%sexpected a JSON object, got %s: write {\"field\": value, ...}", label(path), excerpt(data))
	}
	for dec.More() {
		token, err := dec.Token()
		if err != nil {
			return nil, jsonError(data, dec, err)
		}
		name, _ := token.(string)
		var raw json.RawMessage
		if err := dec.Decode(&raw); err != nil {
			return nil, jsonError(data, dec, err)
		}
		low := strings.ToLower(name)
		if old, twice := o.fields[low]; twice {
			return nil, fmt.Errorf("%s%s: given twice, as %s and %s: keep one", path, excerpt(name), excerpt(old.raw), excerpt(raw))
		}
		o.fields[low] = field{name: name, raw: raw}
	}
	if _, err := dec.Token(); err != nil {
		return nil, jsonError(data, dec, err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%sunexpected text after the closing brace at byte %d: remove it", label(path), dec.InputOffset())
	}
	return o, nil
}

// label turns "Backend." into "Backend: ".
func label(path string) string {
	if path == "" {
		return ""
	}
	return strings.TrimSuffix(path, ".") + ": "
}

func jsonError(data []byte, dec *json.Decoder, err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		if len(bytes.TrimSpace(data)) == 0 {
			return errors.New("empty: expected a JSON object")
		}
		return fmt.Errorf("JSON ends too early, after byte %d: close every brace and quote", len(data))
	}
	at := dec.InputOffset()
	if s, ok := errors.AsType[*json.SyntaxError](err); ok && s.Offset > 0 {
		at = s.Offset
	}
	line := 1 + bytes.Count(data[:min(int(at), len(data))], []byte("\n"))
	return fmt.Errorf("not JSON, line %d: %w", line, err)
}

// excerpt is a foreign text as an error shows it: one line of at most 60 printable bytes.
func excerpt[T []byte | json.RawMessage | string](raw T) string {
	s := strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, strings.TrimSpace(string(raw)))
	if len(s) > 60 {
		s = strings.ToValidUTF8(s[:57], "") + "..."
	}
	return s
}

// take returns the raw value of a field and whether it is there and not null.
func (o *object) take(name string) (json.RawMessage, bool) {
	low := strings.ToLower(name)
	f, ok := o.fields[low]
	if !ok {
		return nil, false
	}
	f.used = true
	o.fields[low] = f
	return f.raw, string(f.raw) != "null"
}

// fail records the first error, with the field's name and value.
func (o *object) fail(name string, raw json.RawMessage, fix string) {
	if o.err == nil {
		o.err = fmt.Errorf("%s%s: %s %s", o.path, name, excerpt(raw), fix)
	}
}

// wrap records the first error of a field whose text says the value and the fix.
func (o *object) wrap(name string, err error) {
	if o.err == nil && err != nil {
		o.err = fmt.Errorf("%s%s: %w", o.path, name, err)
	}
}

// unused returns the names nobody took, sorted.
func (o *object) unused() []string {
	var names []string
	for _, f := range o.fields {
		if !f.used {
			names = append(names, excerpt(f.name))
		}
	}
	slices.Sort(names)
	return names
}

func (o *object) bool(name string, to *bool) {
	raw, ok := o.take(name)
	if ok && json.Unmarshal(raw, to) != nil {
		o.fail(name, raw, "is not a yes or no: write true or false, without quotes")
	}
}

func (o *object) string(name string, to *string) bool {
	raw, ok := o.take(name)
	if ok && json.Unmarshal(raw, to) != nil {
		o.fail(name, raw, "is not text: put it in quotes")
		return false
	}
	return ok
}

// integer reads a whole number from min to max.
func integer[T ~int | ~uint16 | ~uint32](o *object, name string, minimum, maximum int64, to *T) {
	raw, ok := o.take(name)
	if !ok {
		return
	}
	var n int64
	if json.Unmarshal(raw, &n) != nil {
		o.fail(name, raw, fmt.Sprintf("is not a whole number: write one from %d to %d, without quotes", minimum, maximum))
		return
	}
	if n < minimum || n > maximum {
		o.fail(name, raw, fmt.Sprintf("is out of range: write a number from %d to %d", minimum, maximum))
		return
	}
	*to = T(n)
}

// prefix reads a network in CIDR notation of one family.
func (o *object) prefix(name string, v6 bool, to *netip.Prefix) {
	var s string
	if !o.string(name, &s) || s == "" {
		return
	}
	p, err := netip.ParsePrefix(s)
	if err != nil || p.Addr().Is6() != v6 || p.Addr().Is4In6() {
		example := "an IPv4 network: write it as 10.244.0.0/16"
		if v6 {
			example = "an IPv6 network: write it as fd00:10:244::/48"
		}
		o.wrap(name, fmt.Errorf("%q is not %s", s, example))
		return
	}
	*to = p
}

// addr reads an address of one family; flannel takes an unspecified one as absent.
func (o *object) addr(name string, v6 bool, to *netip.Addr) {
	var s string
	if !o.string(name, &s) || s == "" {
		return
	}
	a, err := netip.ParseAddr(s)
	if err != nil || a.Is6() != v6 || a.Is4In6() || a.Zone() != "" {
		example := "an IPv4 address: write it as 10.244.16.0"
		if v6 {
			example = "an IPv6 address: write it as fd00:10:244:10::"
		}
		o.wrap(name, fmt.Errorf("%q is not %s", s, example))
		return
	}
	if !a.IsUnspecified() {
		*to = a
	}
}
