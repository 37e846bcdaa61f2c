package rundir

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"time"
)

// SocketName is the agent's unix socket below its run directory.
const SocketName = "agent.sock"

// Ask gets a path from the agent that runs with the run directory: "/status", "/state".
func Ask(ctx context.Context, runDir, path string) ([]byte, error) {
	return AskFor(ctx, runDir, path, 10*time.Second)
}

// AskFor is Ask with another limit than ten seconds.
func AskFor(ctx context.Context, runDir, path string, limit time.Duration) ([]byte, error) {
	socket := filepath.Join(runDir, SocketName)
	client := http.Client{Timeout: limit, Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", socket)
		},
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://agent"+path, nil)
	if err != nil {
		return nil, fmt.Errorf("ask the agent: %w", err)
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask the agent at %s: %w: does it run on this host?", socket, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("ask the agent: %s: %s", resp.Status, body)
	}
	return body, err
}
