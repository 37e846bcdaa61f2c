package server

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/util/sets"
)

// retiredFlags are flags kube-apiserver had once: accepted, so that an old command line still starts a server, and named
// with what took their place. A trailing "=" in the map's key marks a switch that needs no value.
var retiredFlags = map[string]string{
	"insecure-bind-address":         "there is no port without TLS; /healthz, /livez and /readyz need no credentials on --secure-port",
	"insecure-port":                 "there is no port without TLS; use --secure-port",
	"address":                       "use --bind-address",
	"port":                          "use --secure-port",
	"public-address-override":       "use --advertise-address",
	"portal-net":                    "use --service-cluster-ip-range",
	"basic-auth-file":               "use --token-auth-file or client certificates (--client-ca-file)",
	"kubelet-https=":                "nodes are always called over TLS",
	"kubelet-port":                  "the port comes from the node's status",
	"apiserver-count":               "servers find each other through leases in etcd",
	"etcd-quorum-read=":             "reads are always linearizable",
	"storage-backend-version":       "the store is etcd v3",
	"target-ram-mb":                 "caches size themselves",
	"enable-swagger-ui=":            "use kubectl explain",
	"experimental-keystone-url":     "use --oidc-issuer-url",
	"admission-control-config":      "use --admission-control-config-file",
	"service-account-api-audiences": "use --api-audiences",
}

// accepted are flags that no longer do anything and never changed what the server means, so nobody is told.
var accepted = []string{
	"logtostderr=", "alsologtostderr=", "log-dir", "stderrthreshold", "vmodule", "log-flush-frequency", "cloud-provider",
}

// retiredPlugins maps an admission plugin that is gone to the plugin that took its place (none: what it did is built in)
// and to the words for the operator.
var retiredPlugins = map[string]struct{ plugin, words string }{
	"SecurityContextDeny": {"PodSecurity", "gone since Kubernetes 1.30; PodSecurity is on instead: " +
		"label a namespace pod-security.kubernetes.io/enforce=restricted"},
	"PodSecurityPolicy": {"PodSecurity", "gone since Kubernetes 1.25; PodSecurity is on instead: " +
		"label a namespace pod-security.kubernetes.io/enforce=baseline"},
	"DenyEscalatingExec":    {"PodSecurity", "gone since Kubernetes 1.21; PodSecurity is on instead"},
	"DenyExecOnPrivileged":  {"PodSecurity", "gone since Kubernetes 1.21; PodSecurity is on instead"},
	"PersistentVolumeLabel": {"", "gone since Kubernetes 1.31; storage drivers label their volumes"},
	"InitialResources":      {"LimitRanger", "gone since Kubernetes 1.8; LimitRanger's defaults are on instead"},
	"Initializers":          {"", "gone since Kubernetes 1.14"},
}

// builtIn are the plugins that took over what a server of the days of --admission-control did without a plugin (taints
// of dead nodes and the five minutes pods stay on them, priorities), or what node identities rest on (NodeRestriction).
// The list of --admission-control is otherwise exact.
var builtIn = []string{"NodeRestriction", "TaintNodesByCondition", "DefaultTolerationSeconds", "Priority"}

// defaultOn are the plugins without a flag. Upstream's list has more: those watch APIs this server does not have
// (webhooks, admission policies, runtime classes, certificate requests).
var defaultOn = []string{
	"NamespaceLifecycle", "LimitRanger", "ServiceAccount", "NodeRestriction", "TaintNodesByCondition", "PodSecurity",
	"Priority", "DefaultTolerationSeconds", "DefaultStorageClass", "StorageObjectInUseProtection", "DefaultIngressClass",
	"PodTopologyLabels", "NodeDeclaredFeatureValidator", "PodResizeValidator", "ResourceQuota",
}

// withoutAPI are upstream's plugins that cannot work here, with the API they need.
var withoutAPI = map[string]string{
	"MutatingAdmissionWebhook": "admissionregistration.k8s.io", "ValidatingAdmissionWebhook": "admissionregistration.k8s.io",
	"MutatingAdmissionPolicy": "admissionregistration.k8s.io", "ValidatingAdmissionPolicy": "admissionregistration.k8s.io",
	"RuntimeClass": "node.k8s.io", "CertificateApproval": "certificates.k8s.io", "CertificateSigning": "certificates.k8s.io",
	"CertificateSubjectRestriction": "certificates.k8s.io", "ClusterTrustBundleAttest": "certificates.k8s.io",
}

func (o *Options) addRetiredFlags(fs *pflag.FlagSet) {
	add := func(spec string) *string {
		name, isSwitch := strings.CutSuffix(spec, "=")
		value := fs.String(name, "", "retired")
		if isSwitch {
			fs.Lookup(name).NoOptDefVal = "true"
		}
		return value
	}
	for spec := range retiredFlags {
		o.retired[spec] = add(spec)
	}
	for _, spec := range accepted {
		add(spec)
	}
}

// retirements returns one line for each retired flag that was given.
func (o *Options) retirements() []string {
	var lines []string
	for spec, value := range o.retired {
		if *value != "" {
			lines = append(lines, fmt.Sprintf("--%s is retired: %s", strings.TrimSuffix(spec, "="), retiredFlags[spec]))
		}
	}
	slices.Sort(lines)
	return lines
}

// admission settles which plugins run, in upstream's terms (all others are off), and returns a line for each plugin
// asked for that is retired. Names nobody knows are an error.
func (o *Options) admission() ([]string, error) {
	a := o.kube.Admission
	generic := a.GenericAdmission
	if a.PluginNames != nil && (generic.EnablePlugins != nil || generic.DisablePlugins != nil) {
		return nil, fmt.Errorf("--admission-control excludes --enable-admission-plugins and --disable-admission-plugins: use the latter two")
	}
	known := sets.New(generic.Plugins.Registered()...)
	var lines []string
	take := func(flag string, names []string) ([]string, error) {
		var out []string
		for _, name := range names {
			if gone, ok := retiredPlugins[name]; ok {
				lines = append(lines, fmt.Sprintf("--%s: %s is %s", flag, name, gone.words))
				if name = gone.plugin; name == "" {
					continue
				}
			}
			if !known.Has(name) {
				return nil, fmt.Errorf("--%s: no admission plugin is called %q", flag, name)
			}
			out = append(out, name)
		}
		return out, nil
	}
	on, flag, asked := sets.New(defaultOn...), "enable-admission-plugins", generic.EnablePlugins
	if a.PluginNames != nil {
		on, flag, asked = sets.New(builtIn...), "admission-control", a.PluginNames
	}
	enable, err := take(flag, asked)
	if err != nil {
		return nil, err
	}
	for _, name := range enable {
		if api, ok := withoutAPI[name]; ok {
			return nil, fmt.Errorf("--%s: %s needs the API %s, which weft-server does not serve", flag, name, api)
		}
	}
	disable, err := take("disable-admission-plugins", generic.DisablePlugins)
	if err != nil {
		return nil, err
	}
	on = on.Insert(enable...).Delete(disable...)
	a.PluginNames = nil
	generic.EnablePlugins = sets.List(on)
	generic.DisablePlugins = sets.List(sets.New(generic.RecommendedPluginOrder...).Difference(on))
	return lines, nil
}
