package pod

import (
	"fmt"
	"net/netip"
	"path"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"weft/internal/runtime"
)

// tokenDir is where a service account's token would be mounted. Containers run on the host's files, so it cannot be; nobody asked for
// it either, so it is passed over.
const tokenDir = "/var/run/secrets/kubernetes.io/serviceaccount"

// maxHostname is the longest a hostname may be (DNS label).
const maxHostname = 63

// maxNameservers is what resolv.conf(5) takes.
const maxNameservers = 3

// Sandbox returns what the pod's namespaces are to be. nameservers and domain are the cluster's DNS, for dnsPolicy ClusterFirst.
func Sandbox(p *corev1.Pod, nameservers []netip.Addr, domain string) runtime.Sandbox {
	s := runtime.Sandbox{
		UID: string(p.UID), Namespace: p.Namespace, Name: p.Name, Hostname: p.Spec.Hostname, HostNetwork: p.Spec.HostNetwork,
	}
	if s.Hostname == "" {
		s.Hostname = p.Name
	}
	if len(s.Hostname) > maxHostname {
		s.Hostname = strings.TrimRight(s.Hostname[:maxHostname], "-.")
	}
	clusterFirst := p.Spec.DNSPolicy == corev1.DNSClusterFirstWithHostNet || p.Spec.DNSPolicy == corev1.DNSClusterFirst && !p.Spec.HostNetwork
	if clusterFirst && len(nameservers) > 0 {
		for _, n := range nameservers {
			s.Nameservers = append(s.Nameservers, n.String())
		}
		s.Searches = []string{p.Namespace + ".svc." + domain, "svc." + domain, domain}
	}
	if d := p.Spec.DNSConfig; d != nil {
		s.Nameservers = append(s.Nameservers, d.Nameservers...)
		s.Searches = append(s.Searches, d.Searches...)
	}
	s.Nameservers = s.Nameservers[:min(len(s.Nameservers), maxNameservers)]
	return s
}

// Container returns the program of a container, its references resolved.
func Container(v *Values, c *corev1.Container, attempt int) (runtime.Container, error) {
	e, err := environment(v, c)
	if err != nil {
		return runtime.Container{}, err
	}
	out := runtime.Container{
		Name: c.Name, Image: c.Image, WorkingDir: c.WorkingDir, Stdin: c.Stdin, TTY: c.TTY, Attempt: attempt,
		Command: expandAll(c.Command, e.values), Args: expandAll(c.Args, e.values),
	}
	for _, name := range e.names {
		out.Env = append(out.Env, name+"="+e.values[name])
	}
	return out, nil
}

func expandAll(texts []string, values map[string]string) []string {
	var out []string
	for _, t := range texts {
		out = append(out, Expand(t, values))
	}
	return out
}

// Unsupported says what a container asks for that cannot be given to processes on the host's files, "" when it can run.
func Unsupported(p *corev1.Pod, c *corev1.Container) string {
	if len(c.VolumeDevices) > 0 {
		return fmt.Sprintf("container %s: volumeDevices are not supported by this runtime: it runs on the host's files", c.Name)
	}
	for _, m := range c.VolumeMounts {
		if path.Clean(m.MountPath) == tokenDir || sameOnHost(p, &m) {
			continue
		}
		return fmt.Sprintf("container %s: volume %q (%s) cannot be mounted at %s: this runtime runs on the host's files; "+
			"only a hostPath volume mounted at its own path works", c.Name, m.Name, volumeKind(p, m.Name), m.MountPath)
	}
	return ""
}

// sameOnHost says whether a mount shows what is there anyway.
func sameOnHost(p *corev1.Pod, m *corev1.VolumeMount) bool {
	for _, v := range p.Spec.Volumes {
		if v.Name == m.Name && v.HostPath != nil {
			return path.Clean(path.Join(v.HostPath.Path, m.SubPath)) == path.Clean(m.MountPath) && m.SubPathExpr == ""
		}
	}
	return false
}

func volumeKind(p *corev1.Pod, name string) string {
	for _, v := range p.Spec.Volumes {
		switch {
		case v.Name != name:
		case v.EmptyDir != nil:
			return "emptyDir"
		case v.HostPath != nil:
			return "hostPath"
		case v.ConfigMap != nil:
			return "configMap"
		case v.Secret != nil:
			return "secret"
		case v.Projected != nil:
			return "projected"
		case v.DownwardAPI != nil:
			return "downwardAPI"
		case v.PersistentVolumeClaim != nil:
			return "persistentVolumeClaim"
		}
	}
	return "volume"
}
