// Package conffile reads the agent's configuration file: YAML whose keys are the names of flags, each with a value or a list of values.
//
// Floor 4, programs.
package conffile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Entry is one key of the file.
type Entry struct {
	Key    string
	Values []string // one, or those of a list
	List   bool
	Line   int // counted from 1
}

// Parse reads a file; name is its name in errors, which say the line, the key and what would be right. An empty file has no entries.
func Parse(name string, data []byte) ([]Entry, error) {
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc yaml.Node
	err := dec.Decode(&doc)
	if errors.Is(err, io.EOF) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %s: write one \"flag-name: value\" a line", name, strings.ReplaceAll(err.Error(), "\n", " "))
	}
	if err := dec.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s: there is more than one document: leave out the line ---", name)
	}
	root := doc.Content[0]
	if root.Kind == yaml.ScalarNode && root.Tag == "!!null" {
		return nil, nil // comments only
	}
	if root.Kind != yaml.MappingNode {
		return nil, fmt.Errorf("%s:%d: want lines \"flag-name: value\"", name, root.Line)
	}
	var out []Entry
	seen := map[string]int{}
	for i := 0; i+1 < len(root.Content); i += 2 {
		e, err := entry(root.Content[i], root.Content[i+1])
		if err != nil {
			return nil, fmt.Errorf("%s:%d: %w", name, root.Content[i].Line, err)
		}
		if first, again := seen[e.Key]; again {
			return nil, fmt.Errorf("%s:%d: %s: the key is in line %d already: leave one of them out", name, e.Line, e.Key, first)
		}
		seen[e.Key] = e.Line
		out = append(out, e)
	}
	return out, nil
}

func entry(key, value *yaml.Node) (Entry, error) {
	e := Entry{Key: key.Value, Line: key.Line}
	if key.Kind != yaml.ScalarNode || key.Value == "" {
		return e, errors.New("a key is the name of a flag")
	}
	if strings.HasPrefix(e.Key, "-") {
		return e, fmt.Errorf("%s: write the flag's name without dashes: %s", e.Key, strings.TrimLeft(e.Key, "-"))
	}
	if value.Kind != yaml.SequenceNode {
		text, err := scalar(value)
		if err != nil {
			return e, fmt.Errorf("%s: %w", e.Key, err)
		}
		e.Values = []string{text}
		return e, nil
	}
	e.List, e.Values = true, []string{}
	for _, n := range value.Content {
		text, err := scalar(n)
		if err != nil {
			return e, fmt.Errorf("%s: %w", e.Key, err)
		}
		e.Values = append(e.Values, text)
	}
	return e, nil
}

// scalar is a plain value's text as it is written.
func scalar(n *yaml.Node) (string, error) {
	switch {
	case n.Kind == yaml.AliasNode:
		return "", errors.New("aliases are not read: write the value out")
	case n.Kind != yaml.ScalarNode:
		return "", errors.New("want a value or a list of values")
	case n.Tag == "!!null":
		return "", errors.New("the key has no value: leave it out, or give one (\"\" is the empty one)")
	}
	return n.Value, nil
}
