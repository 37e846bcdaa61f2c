package xt_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"weft/internal/kernel/netns"
	kernelxt "weft/internal/kernel/xt"
)

// program puts a shell script into the directory under a program's name.
func program(t *testing.T, dir, name, script string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
}

func TestRandomFully(t *testing.T) {
	netns.Need(t)
	for _, variant := range []string{"", "nft", "legacy"} {
		if err := (kernelxt.Kernel{Variant: variant}).RandomFully(context.Background()); err != nil {
			t.Errorf("variant %q: %v", variant, err)
		}
	}
	if rules := sh(t, "iptables-nft-save"); strings.Contains(rules, "MASQUERADE") {
		t.Errorf("asking changed the rules:\n%s", rules)
	}
	dir := t.TempDir()
	program(t, dir, "iptables-restore", `echo "iptables-restore v1.4.21: unrecognized option '--random-fully'" >&2; exit 2`)
	t.Setenv("PATH", dir)
	if err := (kernelxt.Kernel{}).RandomFully(context.Background()); err == nil || !strings.Contains(err.Error(), "unrecognized option") {
		t.Errorf("an iptables without it: %v", err)
	}
}

func TestOther(t *testing.T) {
	for version, want := range map[string]string{
		"iptables v1.8.9 (nf_tables)": "legacy", "iptables v1.8.9 (legacy)": "nft", "iptables v1.4.21": "nft",
	} {
		dir := t.TempDir()
		program(t, dir, "iptables", "echo '"+version+"'")
		program(t, dir, "iptables-"+want+"-save", "")
		t.Setenv("PATH", dir+":/bin")
		k, ok, err := kernelxt.Other(context.Background())
		if err != nil || !ok || k.Variant != want {
			t.Errorf("%s: %+v %v %v, want %s", version, k, ok, err, want)
		}
	}
}
