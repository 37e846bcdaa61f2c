// Package kube reads and writes the objects of a Kubernetes API: it keeps an api.Snapshot of the cluster and a node's pods
// current, and writes what a node says of itself. It is the only package that imports client-go, and of that only what it needs: a
// REST client with a scheme of a few groups instead of the clientset of all.
//
// Floor 3, edges.
package kube

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"

	authorizationv1 "k8s.io/api/authorization/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// Content types of the wire.
const (
	typeProtobuf = "application/vnd.kubernetes.protobuf"
	typeJSON     = "application/json"
)

// Requests a second and their burst; a node that starts a hundred pods stays well below.
const (
	requestRate  = 100
	requestBurst = 200
)

// Store is one Kubernetes API seen with one kubeconfig's identity. Its methods are safe for concurrent use.
type Store struct {
	path   string // of the kubeconfig, for messages
	host   string
	caData []byte
	log    *slog.Logger

	scheme *runtime.Scheme
	core, discovery, coordination,
	authorization *rest.RESTClient

	reach    reach
	requests requests
}

// Open reads the kubeconfig at path and prepares its current context. It does not talk to the server: see Check. log may be nil.
func Open(path string, log *slog.Logger) (*Store, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	config, err := loadConfig(path)
	if err != nil {
		return nil, err
	}
	s := &Store{path: path, host: config.Host, log: log}
	s.reach = reach{host: config.Host, log: log}
	if s.caData, err = caOf(config); err != nil {
		return nil, fmt.Errorf("kubeconfig %s: %w", path, err)
	}
	if err := s.connect(config); err != nil {
		return nil, fmt.Errorf("kubeconfig %s: %w", path, err)
	}
	return s, nil
}

// Host is the URL of the API server.
func (s *Store) Host() string { return s.host }

// CA returns the PEM certificates the kubeconfig trusts: the cluster's CA. It is empty when the kubeconfig names none.
func (s *Store) CA() []byte { return s.caData }

// Check asks the server for its version with the kubeconfig's identity. The error names what to do and wraps ErrUnreachable,
// ErrUnauthorized or ErrUntrusted where it is one of these.
func (s *Store) Check(ctx context.Context) error {
	body, err := s.core.Get().AbsPath("/version").SetHeader("Accept", typeJSON).Do(ctx).Raw()
	if err != nil {
		return s.clear(err)
	}
	var v struct{ GitVersion string }
	if err := decodeJSON(body, &v); err != nil || v.GitVersion == "" {
		return fmt.Errorf("%w: %s answers, but not as a Kubernetes API (field clusters.cluster.server of %s)", ErrUnreachable, s.host, s.path)
	}
	return nil
}

func loadConfig(path string) (*rest.Config, error) {
	if path == "" {
		return nil, errors.New("no kubeconfig: give the path of one with --kubeconfig")
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read kubeconfig: %w", err)
	}
	parsed, err := clientcmd.Load(data)
	if err != nil {
		return nil, fmt.Errorf("parse kubeconfig %s: %w", path, err)
	}
	if parsed.CurrentContext == "" {
		return nil, fmt.Errorf("kubeconfig %s: current-context is empty: set it to one of contexts", path)
	}
	for _, c := range parsed.Clusters {
		c.LocationOfOrigin = path
	}
	for _, u := range parsed.AuthInfos {
		u.LocationOfOrigin = path
	}
	if err := clientcmd.ResolveLocalPaths(parsed); err != nil {
		return nil, fmt.Errorf("kubeconfig %s: %w", path, err)
	}
	config, err := clientcmd.NewDefaultClientConfig(*parsed, &clientcmd.ConfigOverrides{}).ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("kubeconfig %s: %w", path, err)
	}
	return config, nil
}

func caOf(config *rest.Config) ([]byte, error) {
	if len(config.CAData) > 0 || config.CAFile == "" {
		return config.CAData, nil
	}
	data, err := os.ReadFile(config.CAFile)
	if err != nil {
		return nil, fmt.Errorf("read certificate-authority: %w", err)
	}
	return data, nil
}

// newScheme knows the groups this package speaks.
func newScheme() (*runtime.Scheme, error) {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		corev1.AddToScheme, discoveryv1.AddToScheme, coordinationv1.AddToScheme, authorizationv1.AddToScheme,
	} {
		if err := add(scheme); err != nil {
			return nil, fmt.Errorf("register types: %w", err)
		}
	}
	return scheme, nil
}

// connect makes one REST client for each group, all over one HTTP client.
func (s *Store) connect(config *rest.Config) error {
	var err error
	if s.scheme, err = newScheme(); err != nil {
		return err
	}
	config.UserAgent = "weft"
	config.ContentType = typeProtobuf
	config.AcceptContentTypes = typeProtobuf + "," + typeJSON
	config.NegotiatedSerializer = serializer.NewCodecFactory(s.scheme).WithoutConversion()
	config.QPS, config.Burst = requestRate, requestBurst
	config.WarningHandlerWithContext = rest.NoWarnings{}
	config.Wrap(s.requests.over)
	client, err := rest.HTTPClientFor(config)
	if err != nil {
		return fmt.Errorf("prepare HTTP client: %w", err)
	}
	for _, g := range []struct {
		path string
		gv   schema.GroupVersion
		to   **rest.RESTClient
	}{
		{"/api", corev1.SchemeGroupVersion, &s.core},
		{"/apis", discoveryv1.SchemeGroupVersion, &s.discovery},
		{"/apis", coordinationv1.SchemeGroupVersion, &s.coordination},
		{"/apis", authorizationv1.SchemeGroupVersion, &s.authorization},
	} {
		c := rest.CopyConfig(config)
		c.APIPath, c.GroupVersion = g.path, &g.gv
		if *g.to, err = rest.RESTClientForConfigAndClient(c, client); err != nil {
			return fmt.Errorf("prepare client of %s: %w", g.gv, err)
		}
	}
	return nil
}
