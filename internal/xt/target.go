package xt

import (
	"net/netip"
	"strconv"
)

// Target is what a rule does: one of Verdict, Jump, Reject, DNAT, SNAT, Redirect, Masquerade, SetMark and RawTarget.
type Target interface {
	// String is the target as iptables-save prints it, from "-j" on.
	String() string
	target()
}

// Verdict ends the walk of a packet through a table (ACCEPT, DROP) or a chain (RETURN).
type Verdict string

// The verdicts.
const (
	Accept Verdict = "ACCEPT"
	Drop   Verdict = "DROP"
	Return Verdict = "RETURN"
)

// Jump goes on in a user-defined chain and comes back, with Goto comes back to the caller of the chain it's in.
type Jump struct {
	Chain string
	Goto  bool
}

// Reject drops and answers: "icmp-port-unreachable", "tcp-reset", in IPv6 "icmp6-port-unreachable". iptables-save always prints
// the kind, so plans must say it.
type Reject struct{ With string }

// DNAT changes the destination. A zero port leaves the port as it is.
type DNAT struct {
	To                 netip.AddrPort
	Random, Persistent bool
}

// SNAT changes the source. A zero port leaves the port as it is where possible.
type SNAT struct {
	To                              netip.AddrPort
	Random, RandomFully, Persistent bool
}

// Redirect changes the destination to the address of the interface the packet came in by (127.0.0.1 for packets of the host
// itself), and the port to Port; 0 leaves the port.
type Redirect struct {
	Port   uint16
	Random bool
}

// Masquerade changes the source to the address of the interface the packet leaves by.
type Masquerade struct{ Random, RandomFully bool }

// SetMark clears the bits of Mask in the packet's mark and XORs Value into it (--set-xmark).
type SetMark struct{ Value, Mask uint32 }

// RawTarget is a target the package does not know by type, as text from "-j" or "-g" on.
type RawTarget string

func (Verdict) target()    {}
func (Jump) target()       {}
func (Reject) target()     {}
func (DNAT) target()       {}
func (SNAT) target()       {}
func (Redirect) target()   {}
func (Masquerade) target() {}
func (SetMark) target()    {}
func (RawTarget) target()  {}

// String is the target as iptables-save prints it.
func (v Verdict) String() string { return "-j " + string(v) }

// String is the target as iptables-save prints it.
func (j Jump) String() string {
	if j.Goto {
		return "-g " + j.Chain
	}
	return "-j " + j.Chain
}

// String is the target as iptables-save prints it.
func (r Reject) String() string {
	if r.With == "" {
		return "-j REJECT"
	}
	return "-j REJECT --reject-with " + r.With
}

// String is the target as iptables-save prints it.
func (d DNAT) String() string {
	return "-j DNAT --to-destination " + natText(d.To) + word(d.Random, " --random") + word(d.Persistent, " --persistent")
}

// String is the target as iptables-save prints it.
func (s SNAT) String() string {
	return "-j SNAT --to-source " + natText(s.To) + word(s.Random, " --random") +
		word(s.RandomFully, " --random-fully") + word(s.Persistent, " --persistent")
}

// String is the target as iptables-save prints it.
func (r Redirect) String() string {
	t := "-j REDIRECT"
	if r.Port != 0 {
		t += " --to-ports " + strconv.Itoa(int(r.Port))
	}
	return t + word(r.Random, " --random")
}

// String is the target as iptables-save prints it.
func (m Masquerade) String() string {
	return "-j MASQUERADE" + word(m.Random, " --random") + word(m.RandomFully, " --random-fully")
}

// String is the target as iptables-save prints it.
func (m SetMark) String() string { return "-j MARK --set-xmark " + hex(m.Value) + "/" + hex(m.Mask) }

// String is the text.
func (r RawTarget) String() string { return string(r) }

func word(yes bool, w string) string {
	if yes {
		return w
	}
	return ""
}

func natText(a netip.AddrPort) string {
	if a.Port() == 0 {
		return a.Addr().String()
	}
	return a.String()
}
