package cleanup

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"weft/internal/agent/facts"
	"weft/internal/agent/others"
	"weft/internal/agent/rules"
	"weft/internal/agent/rundir"
)

// cleanFlannel removes flannel's rules when the agent's own do their work.
func (o cleanup) cleanFlannel(ctx context.Context) error {
	if pids := others.Running("/proc", "flanneld"); len(pids) > 0 {
		return fmt.Errorf("flanneld runs here (process %s) and would put its rules back: stop it first", strings.Join(pids, ", "))
	}
	if _, err := o.inPlace(ctx, "flannel"); err != nil {
		return err
	}
	return errors.Join(o.tables(others.FlannelTables...), o.chains(ctx, others.FlannelOps))
}

// cleanKubeProxy removes a kube-proxy's rules when the agent's own do their work.
func (o cleanup) cleanKubeProxy(ctx context.Context) error {
	if pids := others.Running("/proc", "kube-proxy"); len(pids) > 0 {
		return fmt.Errorf("kube-proxy runs here (process %s) and would put its rules back: stop it first", strings.Join(pids, ", "))
	}
	mode, err := o.inPlace(ctx, "kube-proxy")
	if err != nil {
		return err
	}
	if !rules.ModeNamed(mode).Services {
		return fmt.Errorf("the agent is in --proxy-mode=%s: without kube-proxy's rules nobody would serve: choose another mode first", mode)
	}
	err = errors.Join(o.tables(others.KubeProxyTables...), o.chains(ctx, others.KubeProxyOps))
	for _, left := range others.IpvsLeft("/sys", "/proc") {
		fmt.Fprintf(o.out, "# left: %s, of a kube-proxy in mode ipvs: kube-proxy --cleanup removes it\n", left)
	}
	return err
}

// inPlace asks the agent whether its rules do the work of the other program, and returns its proxy mode.
func (o cleanup) inPlace(ctx context.Context, other string) (facts.ProxyMode, error) {
	body, err := rundir.Ask(ctx, o.runDir, "/status")
	if err != nil {
		return "", fmt.Errorf("the agent's rules must be in place before %s's go: %w", other, err)
	}
	var s struct {
		Converged bool            `json:"converged"`
		ProxyMode facts.ProxyMode `json:"proxyMode"`
	}
	if err := json.Unmarshal(body, &s); err != nil {
		return "", fmt.Errorf("read the agent's status: %w", err)
	}
	if !s.Converged {
		return "", fmt.Errorf("the agent's rules must be in place before %s's go: weft status says not converged, see why there", other)
	}
	return s.ProxyMode, nil
}
