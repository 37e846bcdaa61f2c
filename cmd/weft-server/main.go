// Command weft-server is the control plane: see internal/server.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"weft/internal/server"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // the second signal kills
	if err := server.Command().ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "weft-server:", err)
		os.Exit(1)
	}
}
