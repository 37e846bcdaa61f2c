// Command weft is the node agent, the operator's commands and the lab.
package main

import (
	"os"

	"weft/internal/cli"
)

func main() { os.Exit(cli.Main(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }
