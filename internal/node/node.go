// Package node is what a node does for Kubernetes: it registers and heartbeats, runs the pods bound to it, tells their status, and
// serves kubectl's logs, exec and port-forward. It composes a store of the API with a pod runtime and a network, which it gets as
// interfaces.
//
// Floor 4, programs.
package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"weft/internal/api"
	"weft/internal/node/kubelet"
	"weft/internal/runtime"
)

// Sandboxes holds what pods share; runtime/process implements it. CreateSandbox and RemoveSandbox are idempotent by UID, List tells of
// everything there is, also of a previous agent's, Changed receives after something exited.
type Sandboxes interface {
	CreateSandbox(ctx context.Context, s runtime.Sandbox) (runtime.SandboxStatus, error)
	RemoveSandbox(ctx context.Context, uid string) error
	List(ctx context.Context) ([]runtime.SandboxStatus, error)
	Changed() <-chan struct{}
}

// Containers runs the programs of a pod. StartContainer's error is runtime.ErrImage when nobody has the image; StopContainer
// returns when the container has ended, at the latest when its grace is over.
type Containers interface {
	StartContainer(ctx context.Context, uid string, c runtime.Container) (runtime.ContainerStatus, error)
	StopContainer(ctx context.Context, uid, name string, grace time.Duration) error
	Exec(ctx context.Context, uid, container string, cmd []string, s runtime.Stream) (exitCode int, err error)
}

// Runtime runs pods.
type Runtime interface {
	Sandboxes
	Containers
}

// Network gives a sandbox its addresses and takes them back. Both are idempotent.
type Network interface {
	Attach(ctx context.Context, s runtime.SandboxStatus) ([]netip.Addr, error)
	Detach(ctx context.Context, uid string) error
}

// Pods tells which pods are bound to the node, and whether they were ever listed; kube.PodWatch implements it.
type Pods interface {
	Pods() (pods []*corev1.Pod, listed bool)
	Changed() <-chan struct{}
}

// PodAPI is what the node reads and writes for a pod; kube.Store implements it.
type PodAPI interface {
	PatchPodStatus(ctx context.Context, namespace, name string, uid types.UID, status *corev1.PodStatus) error
	DeletePod(ctx context.Context, namespace, name string, uid types.UID) error
	ConfigMap(ctx context.Context, namespace, name string) (*corev1.ConfigMap, error)
	Secret(ctx context.Context, namespace, name string) (*corev1.Secret, error)
}

// NodeAPI is what the node says of itself, and asks about its callers; kube.Store implements it.
type NodeAPI interface {
	RegisterNode(ctx context.Context, want *corev1.Node) (have *corev1.Node, err error)
	PatchNodeStatus(ctx context.Context, name string, status *corev1.NodeStatus) error
	RenewLease(ctx context.Context, node string, now time.Time) error
	Allowed(ctx context.Context, user string, groups []string, verb, node, sub string) (bool, error)
}

// API is the Kubernetes API as the node uses it.
type API interface {
	PodAPI
	NodeAPI
}

// Recorder tells people what happened; kube.Recorder implements it.
type Recorder interface {
	Event(object corev1.ObjectReference, kind, reason, message string)
}

// Config is everything a node needs. Name, API, Pods, Events, Runtime, Network and Addresses are required.
type Config struct {
	Name    string // of the Node object
	API     API
	Pods    Pods
	Events  Recorder
	Runtime Runtime
	Network Network

	Addresses    func() []netip.Addr      // the host's own addresses (InternalIP), the preferred one first
	NetworkReady func() error             // why pods cannot be attached yet, nil when they can; nil: always ready
	Services     func() []api.ServicePort // for the service environment variables; nil: none
	Nameservers  []netip.Addr             // of pods with dnsPolicy ClusterFirst; empty: the host's
	Domain       string                   // cluster domain for the DNS search list, default cluster.local

	Listen   netip.AddrPort // where kubectl's logs, exec and port-forward are served; zero port: not at all
	StateDir string         // keeps the serving certificate; required with Listen
	ClientCA []byte         // PEM: who signs the callers' certificates; required with Listen

	Labels         map[string]string // of the Node, besides kubernetes.io/hostname, os and arch
	MaxPods        int               // default 110
	RuntimeVersion string            // default weft-process://<Version>
	Version        string            // of the product
	ProbeInPod     bool              // probe from inside the pod's namespace: the host cannot reach its pods (backend l2)
	Log            *slog.Logger
}

// DefaultMaxPods is how many pods a node takes when Config does not say.
const DefaultMaxPods = 110

func (c *Config) check() error {
	switch {
	case c.Name == "":
		return errors.New("node: no name (--node-name)")
	case c.API == nil || c.Pods == nil || c.Events == nil || c.Runtime == nil || c.Network == nil || c.Addresses == nil:
		return errors.New("node: API, Pods, Events, Runtime, Network and Addresses are required")
	case c.Listen.Port() != 0 && c.StateDir == "":
		return errors.New("node: no state directory for the serving certificate (--state-dir)")
	case c.Listen.Port() != 0 && len(c.ClientCA) == 0:
		return errors.New("node: the kubeconfig holds no certificate-authority-data, so callers of logs and exec cannot be told apart")
	}
	c.setDefaults()
	return nil
}

func (c *Config) setDefaults() {
	if c.NetworkReady == nil {
		c.NetworkReady = func() error { return nil }
	}
	if c.Services == nil {
		c.Services = func() []api.ServicePort { return nil }
	}
	c.MaxPods = cmp.Or(c.MaxPods, DefaultMaxPods)
	c.Version = cmp.Or(c.Version, "dev")
	c.RuntimeVersion = cmp.Or(c.RuntimeVersion, "weft-process://"+c.Version)
	c.Domain = cmp.Or(c.Domain, "cluster.local")
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
}

// Run does the node's work until ctx ends. Pods outlive it: the next Run adopts them.
func Run(ctx context.Context, c Config) error {
	if err := c.check(); err != nil {
		return err
	}
	n := newProgram(&c)
	group, ctx := errgroup.WithContext(ctx)
	if c.Listen.Port() != 0 {
		l, config, err := listen(&c)
		if err != nil {
			return fmt.Errorf("run node %s: %w", c.Name, err)
		}
		config.Pods = served{n}
		group.Go(func() error { return kubelet.Serve(ctx, l, *config) })
	}
	group.Go(func() error { return heartbeat(ctx, &c) })
	group.Go(func() error { return n.run(ctx) })
	if err := group.Wait(); err != nil {
		return fmt.Errorf("run node %s: %w", c.Name, err)
	}
	return nil
}
