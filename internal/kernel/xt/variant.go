package xt

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// Other is the iptables variant that the host's default programs are not, when its programs are installed: a host may have rules in both,
// and a packet must pass both.
func Other(ctx context.Context) (k Kernel, ok bool, err error) {
	version, err := run(ctx, "", "iptables", "--version")
	if errors.Is(err, ErrMissing) {
		return Kernel{}, false, nil
	}
	if err != nil {
		return Kernel{}, false, fmt.Errorf("ask iptables for its version: %w", err)
	}
	k.Variant = "legacy"
	if !strings.Contains(version, "nf_tables") {
		k.Variant = "nft"
	}
	_, err = lookPath(k.program(false, "save"))
	return k, err == nil, nil
}

// RandomFully asks iptables whether it knows fully random source ports (since 1.6.2). The error is what it says when it does not. It
// changes nothing.
func (k Kernel) RandomFully(ctx context.Context) error {
	const rules = "*nat\n-A POSTROUTING -j MASQUERADE --random-fully\nCOMMIT\n"
	_, err := run(ctx, rules, k.program(false, "restore"), "--test", "--noflush", "-w", wait)
	if errors.Is(err, ErrMissing) {
		return nil // who needs it will say so
	}
	return err
}
