// Package live changes a running cluster under its traffic: injuries, a new address, another MTU, another backend. It measures what
// repairs take and what a connection between two pods sees of it.
//
// Floor 4, programs.
package live
