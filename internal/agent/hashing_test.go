package agent

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"weft/internal/kernel/nft"
)

func TestHashless(t *testing.T) {
	for _, c := range []struct {
		feature nft.Feature
		err     error
		want    bool
	}{
		{nft.Feature{}, nil, false},
		{nft.Feature{Err: unix.ENOENT}, nil, true},
		{nft.Feature{}, errors.New("not to be asked"), false},
	} {
		asked := 0
		h := hashless{ask: func() (nft.Feature, error) { asked++; return c.feature, c.err }}
		if first := h.get(); first != c.want || h.get() != first || asked != 1 {
			t.Errorf("%+v: want %t; asked %d times", c, c.want, asked)
		}
	}
}
