package api_test

import (
	"testing"

	"weft/internal/api"
)

func TestNames(t *testing.T) {
	n := api.NamesOf("b", "a", "b", "", "c,d")
	if n != "a,b" || !n.Has("a") || n.Has("") || n.Has("c") || api.NamesOf().Has("") || n.Has("a,b") {
		t.Errorf("have %q", n)
	}
}
