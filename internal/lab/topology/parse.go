package topology

import (
	"bytes"
	"encoding"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// maxBytes bounds a topology file.
const maxBytes = 1 << 20

// Parse reads a topology, fills what is left out and checks it. Every error names the field, its value and what to write instead.
func Parse(data []byte) (Topology, error) {
	var t Topology
	if len(data) > maxBytes {
		return t, fmt.Errorf("topology: %d bytes: at most %d", len(data), maxBytes)
	}
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc yaml.Node
	err := dec.Decode(&doc)
	if errors.Is(err, io.EOF) {
		return Default(), nil
	}
	if err != nil {
		return t, fmt.Errorf("topology: not YAML: %w", err)
	}
	if err := dec.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return t, errors.New("topology: more than one YAML document: keep the first")
	}
	if err := decode(doc.Content[0], "", reflect.ValueOf(&t).Elem()); err != nil {
		return Topology{}, fmt.Errorf("topology: %w", err)
	}
	if err := t.checkNodes(); err != nil {
		return Topology{}, fmt.Errorf("topology: %w", err)
	}
	t.setDefaults()
	if err := t.Validate(); err != nil {
		return Topology{}, err
	}
	return t, nil
}

// decode puts a YAML node into v and names the field in every error. The library's own strict mode names only line and Go type.
func decode(n *yaml.Node, path string, v reflect.Value) error {
	if n.Kind == yaml.AliasNode {
		return fmt.Errorf("line %d: %s: aliases are not taken: write the value out", n.Line, name(path))
	}
	if n.Tag == "!!null" {
		return nil
	}
	_, text := reflect.TypeAssert[encoding.TextUnmarshaler](v.Addr())
	switch {
	case v.Kind() == reflect.Struct && !text:
		return decodeStruct(n, path, v)
	case v.Kind() == reflect.Slice:
		if n.Kind != yaml.SequenceNode {
			return fmt.Errorf("line %d: %s: want a list (lines that begin with -)", n.Line, name(path))
		}
		for i, item := range n.Content {
			e := reflect.New(v.Type().Elem()).Elem()
			if err := decode(item, fmt.Sprintf("%s[%d]", path, i), e); err != nil {
				return err
			}
			v.Set(reflect.Append(v, e))
		}
		return nil
	case n.Kind != yaml.ScalarNode:
		return fmt.Errorf("line %d: %s: want %s, not a list or mapping", n.Line, name(path), example(v))
	}
	if n.Value == "" && text {
		return nil
	}
	if err := n.Decode(v.Addr().Interface()); err != nil {
		return fmt.Errorf("line %d: %s: %q: want %s", n.Line, name(path), n.Value, example(v))
	}
	return nil
}

func decodeStruct(n *yaml.Node, path string, v reflect.Value) error {
	if n.Kind != yaml.MappingNode {
		return fmt.Errorf("line %d: %s: want fields (%s), not %q", n.Line, name(path), strings.Join(fields(v.Type()), ", "), n.Value)
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		at := strings.TrimPrefix(path+"."+key.Value, ".")
		j := slices.Index(fields(v.Type()), key.Value)
		if j < 0 {
			return fmt.Errorf("line %d: %s: unknown field: known are %s", key.Line, at, strings.Join(fields(v.Type()), ", "))
		}
		if seen[key.Value] {
			return fmt.Errorf("line %d: %s: given twice: keep one", key.Line, at)
		}
		seen[key.Value] = true
		if err := decode(value, at, v.Field(j)); err != nil {
			return err
		}
	}
	return nil
}

func name(path string) string {
	if path == "" {
		return "top level"
	}
	return path
}

// fields returns the YAML names of a struct's fields, by index.
func fields(t reflect.Type) []string {
	names := make([]string, t.NumField())
	for i := range names {
		names[i], _, _ = strings.Cut(t.Field(i).Tag.Get("yaml"), ",")
	}
	return names
}

func example(v reflect.Value) string {
	switch v.Type().String() {
	case "netip.Addr":
		return "an address such as 172.17.42.30"
	case "netip.Prefix":
		return "a subnet such as 172.17.0.0/16"
	case "int":
		return "a number"
	case "bool":
		return "true or false"
	}
	return "text"
}
