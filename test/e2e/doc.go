// Package e2e drives the ordinary binaries in labs, as their users do: the walkthrough, what happens when a program is killed or an
// object is stolen, and what wrong use looks like.
//
// The binaries come from $WEFT_BIN, by default bin below the repository. Every lab ends with its test, or with the test process.
//
// Floor 4, programs.
package e2e
