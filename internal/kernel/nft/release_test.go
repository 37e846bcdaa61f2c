package nft

import "testing"

func TestAtLeast(t *testing.T) {
	for release, want := range map[string]bool{
		"6.18.44-fc-v445": true, "6.5": true, "6.5.0-rc1": true, "6.4.12": false, "5.14.0-427.el9": false, "10.0": true, "": false, "x": false,
	} {
		if got := atLeast(release, 6, 5); got != want {
			t.Errorf("%q is at least 6.5: %t", release, got)
		}
	}
}
