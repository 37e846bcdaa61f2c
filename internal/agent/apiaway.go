package agent

// apiWarnings says that the Kubernetes API can't be read: the node goes on with what was last known, and nothing else would show it.
func (a *agent) apiWarnings() []string {
	if why := a.kube.Away(); why != "" {
		return []string{why}
	}
	return nil
}
