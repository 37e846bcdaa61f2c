package network

import "testing"

// TestMoves: whatever the changes of the port before, and whichever of them the node has seen, a device goes on under the name the plan has
// for its port.
func TestMoves(t *testing.T) {
	const p, q, r = 51820, 7000, 7001
	for _, c := range []struct {
		name       string
		have, want pair
		move       move
	}{
		{"nothing changes", pair{p, 0}, pair{p, 0}, stay},
		{"preparing", pair{p, 0}, pair{p, q}, stay},
		{"prepared", pair{p, q}, pair{p, q}, stay},
		{"in force, and what was before goes", pair{p, q}, pair{q, 0}, succeed},
		{"undone while it is prepared", pair{p, q}, pair{p, 0}, stay},
		{"back while the old one is left", pair{p, q}, pair{q, p}, swap},
		{"on to a third one while the old one is left", pair{p, q}, pair{q, r}, succeed},
		{"nobody prepared it, and the old one is left", pair{p, 0}, pair{p, q}, stay},
		{"there and half the way back, seen at once", pair{p, 0}, pair{q, p}, yield},
		{"written at once", pair{p, 0}, pair{q, 0}, stay},
		{"no peers", pair{p, q}, pair{0, 0}, stay},
		{"the IPv6 device of another mode is new", pair{0, q}, pair{q, 0}, succeed},
		{"nothing is there yet", pair{0, 0}, pair{p, q}, stay},
	} {
		if got := moveOf(c.have, c.want); got != c.move {
			t.Errorf("%s: have %v, want %v: %d, want %d", c.name, c.have, c.want, got, c.move)
		}
	}
}
