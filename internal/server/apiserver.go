package server

import (
	"fmt"
	"net"
	"net/http"
	"sync"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	genericapifilters "k8s.io/apiserver/pkg/endpoints/filters"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/apiserver/pkg/server/mux"
	"k8s.io/apiserver/pkg/server/routes"
	serverstorage "k8s.io/apiserver/pkg/server/storage"
	"k8s.io/apiserver/pkg/util/notfoundhandler"
	"k8s.io/apiserver/pkg/util/webhook"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/rest"
	_ "k8s.io/component-base/metrics/prometheus/workqueue" // the queues' metrics on /metrics
	openapicommon "k8s.io/kube-openapi/pkg/common"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	"k8s.io/kubernetes/pkg/capabilities"
	"k8s.io/kubernetes/pkg/controlplane"
	cpapiserver "k8s.io/kubernetes/pkg/controlplane/apiserver"
	cpoptions "k8s.io/kubernetes/pkg/controlplane/apiserver/options"
	"k8s.io/kubernetes/pkg/controlplane/reconcilers"
	generatedopenapi "k8s.io/kubernetes/pkg/generated/openapi"
	kubeadmission "k8s.io/kubernetes/pkg/kubeapiserver/admission"
)

// notServed are upstream's API groups without a controller here: a Job nobody runs would be a lie.
var notServed = []schema.GroupVersion{
	{Group: "admissionregistration.k8s.io", Version: "v1"},
	{Group: "autoscaling", Version: "v1"},
	{Group: "autoscaling", Version: "v2"},
	{Group: "batch", Version: "v1"},
	{Group: "certificates.k8s.io", Version: "v1"},
	{Group: "flowcontrol.apiserver.k8s.io", Version: "v1"},
	{Group: "node.k8s.io", Version: "v1"},
}

// api is the API server, built but not running.
type api struct {
	*genericapiserver.GenericAPIServer
	informers informers.SharedInformerFactory // started by the server itself
	loopback  *rest.Config                    // the process's own client, of group system:masters
}

// newAPI builds the API server from completed options. It is kube-apiserver's core with everything it stores, without
// the aggregation layer and custom resources in front of it: no service of weft needs those.
func newAPI(opts cpoptions.CompletedOptions, o *Options, r ranges) (*api, error) {
	capabilities.Setup(o.AllowPrivileged, 0)
	resources := controlplane.DefaultAPIResourceConfigSource()
	resources.DisableVersions(notServed...)
	generic, informerFactory, storage, err := cpapiserver.BuildGenericConfig(opts,
		[]*runtime.Scheme{legacyscheme.Scheme}, resources, generatedopenapi.GetOpenAPIDefinitions)
	if err != nil {
		return nil, fmt.Errorf("configure API server: %w", err)
	}
	swagger := generic.OpenAPIConfig
	generic.OpenAPIConfig = nil // see serveOpenAPIv2
	config, err := newControlPlane(opts, generic, informerFactory, storage)
	if err != nil {
		return nil, err
	}
	config.Extra = controlplane.Extra{
		KubeletClientConfig:     o.kubelet,
		ServiceIPRange:          ipNet(r.service[0]),
		SecondaryServiceIPRange: ipNet(second(r.service)),
		APIServerServiceIP:      net.IP(first(r.service[0]).AsSlice()),
		APIServerServicePort:    443,
		ServiceNodePortRange:    o.NodePorts,
		EndpointReconcilerType:  reconcilers.LeaseEndpointReconcilerType,
		MasterCount:             1,
	}
	notFound := notfoundhandler.New(generic.Serializer, genericapifilters.NoMuxAndDiscoveryIncompleteKey)
	instance, err := config.Complete().New(genericapiserver.NewEmptyDelegateWithCustomHandler(notFound))
	if err != nil {
		return nil, fmt.Errorf("build API server: %w", err)
	}
	server := instance.ControlPlane.GenericAPIServer
	server.ShutdownTimeout = shutdownPatience
	serveOpenAPIv2(server, swagger)
	return &api{GenericAPIServer: server, informers: informerFactory, loopback: generic.LoopbackClientConfig}, nil
}

func newControlPlane(opts cpoptions.CompletedOptions, generic *genericapiserver.Config, factory informers.SharedInformerFactory,
	storage *serverstorage.DefaultStorageFactory,
) (*controlplane.Config, error) {
	initializers, err := (&kubeadmission.Config{}).New()
	if err != nil {
		return nil, fmt.Errorf("configure admission: %w", err)
	}
	config, _, err := cpapiserver.CreateConfig(opts, generic, factory, storage, webhook.NewDefaultServiceResolver(), initializers)
	if err != nil {
		return nil, fmt.Errorf("configure API server: %w", err)
	}
	return &controlplane.Config{ControlPlane: *config}, nil
}

// serveOpenAPIv2 builds the OpenAPI v2 document when somebody asks for it. Clients of the last years ask for v3; building
// v2 at every start, as upstream does, would cost a fifth of the start and of the memory.
func serveOpenAPIv2(server *genericapiserver.GenericAPIServer, config *openapicommon.Config) {
	config.Info.Version = server.EffectiveVersion.EmulationVersion().String()
	documents := sync.OnceValue(func() http.Handler {
		sub := mux.NewPathRecorderMux("openapi")
		routes.OpenAPI{Config: config}.InstallV2(server.Handler.GoRestfulContainer, sub)
		return sub
	})
	server.Handler.NonGoRestfulMux.HandleFunc("/openapi/v2", func(w http.ResponseWriter, r *http.Request) {
		documents().ServeHTTP(w, r)
	})
}

// firstError makes upstream's list of complaints one line.
func firstError(errs []error) error {
	if len(errs) == 0 {
		return nil
	}
	return utilerrors.Reduce(utilerrors.NewAggregate(errs))
}
