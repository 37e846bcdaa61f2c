package services

import (
	"errors"
	"fmt"
	"testing"

	kernelnft "weft/internal/kernel/nft"
	kernelxt "weft/internal/kernel/xt"
)

// TestSingle: what the kernel refuses of one service is no reason to call the node unhealthy, anything else is.
func TestSingle(t *testing.T) {
	element, rule, port := &kernelnft.Refused{Err: errors.New("no such file")}, &kernelxt.RefusedError{}, &listenError{errors.New("in use")}
	for _, c := range []struct {
		err  error
		want bool
	}{
		{nil, true},
		{fmt.Errorf("service default/web: %w", element), true},
		{errors.Join(element, errors.Join(rule, nil), port), true},
		{errors.New("read table inet weft: no buffer space"), false},
		{errors.Join(element, errors.New("apply rules of table nat: nothing changed")), false},
	} {
		if single(c.err) != c.want {
			t.Errorf("%v: %v", c.err, !c.want)
		}
	}
}
