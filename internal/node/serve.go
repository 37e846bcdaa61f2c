package node

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"

	"weft/internal/node/kubelet"
	"weft/internal/node/pod"
	"weft/internal/runtime"
)

// listen opens the server's port and loads its certificate: what can fail at the start fails here.
func listen(c *Config) (net.Listener, *kubelet.Config, error) {
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(c.ClientCA) {
		return nil, nil, errors.New("the kubeconfig's certificate-authority-data holds no certificate")
	}
	cert, err := kubelet.LoadCert(filepath.Join(c.StateDir, "pki"), c.Name, c.Addresses(), time.Now())
	if err != nil {
		return nil, nil, err
	}
	l, err := net.Listen("tcp", c.Listen.String())
	if err != nil {
		return nil, nil, fmt.Errorf("serve logs and exec (--kubelet-port): %w", err)
	}
	access := func(ctx context.Context, user string, groups []string, verb, sub string) (bool, error) {
		return c.API.Allowed(ctx, user, groups, verb, c.Name, sub)
	}
	return l, &kubelet.Config{Access: access, Cert: cert, ClientCA: pool, Log: c.Log}, nil
}

// served is the node's pods as the kubelet server sees them.
type served struct{ *program }

// find returns the worker of a pod that the API has.
func (s served) find(namespace, name string) (*worker, *corev1.Pod, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, w := range s.workers {
		w.mu.Lock()
		p, gone := w.latest, w.gone
		w.mu.Unlock()
		if !gone && p.Namespace == namespace && p.Name == name {
			return w, p, nil
		}
	}
	return nil, nil, fmt.Errorf("pod %s/%s on this node: %w", namespace, name, runtime.ErrNotFound)
}

// container returns the latest run of a container, nil when there was none.
func (s served) container(ctx context.Context, w *worker, p *corev1.Pod, name string) (*runtime.ContainerStatus, error) {
	for _, c := range pod.All(p) {
		if c.Name != name {
			continue
		}
		box, err := s.watch.get(ctx, w.uid)
		return pod.Latest(box, name), err
	}
	return nil, fmt.Errorf("container %s in pod %s: %w", name, p.Name, runtime.ErrNotFound)
}

// Log returns where a container's log is, or the one of its run before.
func (s served) Log(namespace, name, container string, previous bool) (kubelet.Log, error) {
	w, p, err := s.find(namespace, name)
	if err != nil {
		return kubelet.Log{}, err
	}
	ctx := context.Background()
	st, err := s.container(ctx, w, p, container)
	if err != nil {
		return kubelet.Log{}, err
	}
	if st == nil {
		return kubelet.Log{}, fmt.Errorf("container %q in pod %q is waiting to start", container, name)
	}
	if !previous {
		return kubelet.Log{Path: st.LogPath, Running: func() bool {
			now, err := s.container(ctx, w, p, container)
			return err == nil && now != nil && now.ID == st.ID && now.State == runtime.Running
		}}, nil
	}
	if st.Attempt == 0 {
		return kubelet.Log{}, fmt.Errorf("previous terminated container %q in pod %q not found", container, name)
	}
	path := filepath.Join(filepath.Dir(st.LogPath), strconv.Itoa(st.Attempt-1)+".log") // runtimes keep the attempts side by side
	return kubelet.Log{Path: path, Running: func() bool { return false }}, nil
}

// Exec runs a command in a running container.
func (s served) Exec(ctx context.Context, namespace, name, container string, cmd []string, io runtime.Stream) (int, error) {
	w, p, err := s.find(namespace, name)
	if err != nil {
		return 0, err
	}
	st, err := s.container(ctx, w, p, container)
	if err != nil {
		return 0, err
	}
	if st == nil || st.State != runtime.Running {
		return 0, fmt.Errorf("container %s in pod %s is not running", container, name)
	}
	return s.config.Runtime.Exec(ctx, w.uid, container, cmd, io)
}

// Netns returns the path of a pod's network namespace, "" for the host's.
func (s served) Netns(namespace, name string) (string, error) {
	w, p, err := s.find(namespace, name)
	if err != nil || p.Spec.HostNetwork {
		return "", err
	}
	box, err := s.watch.get(context.Background(), w.uid)
	if err != nil {
		return "", err
	}
	if box == nil || box.Netns == "" {
		return "", fmt.Errorf("pod %s/%s has no network yet", namespace, name)
	}
	return box.Netns, nil
}

// List returns the pods of this node.
func (s served) List() []*corev1.Pod {
	pods, _ := s.config.Pods.Pods()
	return pods
}
