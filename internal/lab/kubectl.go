package lab

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"weft/internal/lab/host"
	"weft/internal/lab/topology"
)

func (l *Lab) master() (string, error) {
	masters := l.info.Topology.With(topology.Master)
	if len(masters) == 0 {
		return "", fmt.Errorf("lab %s has no host with role master: no API to ask", l.info.Name)
	}
	return masters[0].Name, nil
}

// kubectlHere runs kubectl in a host's network but with the machine's files and environment, so that "create -f" finds what is in the
// user's directory.
func (l *Lab) kubectlHere(ctx context.Context, hostName string, s Stdio, tty bool, args []string) error {
	if _, err := l.master(); err != nil {
		return err
	}
	argv := append([]string{filepath.Join(l.info.Bin, "kubectl")}, args...)
	cmd, err := l.nsenter(ctx, hostName, []string{"--net", "--pid"}, argv)
	if err != nil {
		return err
	}
	cmd.Env = append(os.Environ(),
		"KUBECONFIG="+host.Disk(l.dir, hostName, adminConfig),
		"KUBECACHEDIR="+filepath.Join(l.dir, "kubectl-cache"))
	return l.runCommand(cmd, hostName, s, tty, append([]string{"kubectl"}, args...))
}
