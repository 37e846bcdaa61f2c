package agent

import (
	"context"
	"fmt"
	"net"
	"strconv"

	"weft/internal/agent/settings"
)

// checkPorts refuses ports that another program has, before a subnet is leased and anything is made in the kernel for an agent that
// cannot serve.
func checkPorts(ctx context.Context, c settings.Config) error {
	kubelet := ""
	if c.KubeletPort != 0 && c.Kubeconfig != "" && c.PodRuntime == "process" {
		kubelet = net.JoinHostPort("", strconv.Itoa(c.KubeletPort))
	}
	for _, p := range []struct{ flag, value, addr, off string }{
		{"--healthz-bind", c.HealthzBind, c.HealthzBind, `""`},
		{"--metrics-bind", c.MetricsBind, c.MetricsBind, `""`},
		{"--kubelet-port", strconv.Itoa(c.KubeletPort), kubelet, "0"},
	} {
		if p.addr == "" {
			continue
		}
		var lc net.ListenConfig
		l, err := lc.Listen(ctx, "tcp", p.addr)
		if err != nil {
			return fmt.Errorf("%s=%s: %w: choose another, or %s for none", p.flag, p.value, err, p.off)
		}
		if err := l.Close(); err != nil {
			return fmt.Errorf("%s=%s: %w", p.flag, p.value, err)
		}
	}
	return nil
}
