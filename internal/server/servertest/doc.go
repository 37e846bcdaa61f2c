// Package servertest drives the built weft-server as its users do: the program, its files, its API. It links nothing of
// the server, so its tests build in a moment; the program comes from $WEFT_BIN (or $WEFT_BIN_DIR), else it is built once.
package servertest
