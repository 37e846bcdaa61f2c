package agent

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"
	"testing"

	"weft/internal/agent/settings"
)

func TestCheckPortsNamesTheFlag(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	port := l.Addr().(*net.TCPAddr).Port
	for want, c := range map[string]settings.Config{
		"--healthz-bind=" + l.Addr().String():    {HealthzBind: l.Addr().String()},
		fmt.Sprintf("--kubelet-port=%d: ", port): {KubeletPort: port, Kubeconfig: "x", PodRuntime: "process"},
		"":                                       {KubeletPort: port, PodRuntime: "none"},
	} {
		err := checkPorts(t.Context(), c)
		switch {
		case want == "" && err != nil:
			t.Errorf("a port that is not used was refused: %v", err)
		case want != "" && (err == nil || !strings.HasPrefix(err.Error(), want) || !errors.Is(err, syscall.EADDRINUSE)):
			t.Errorf("%v: want %s", err, want)
		}
	}
}
