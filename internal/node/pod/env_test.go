package pod

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"weft/internal/api"
)

func TestExpand(t *testing.T) {
	values := map[string]string{"A": "1", "B": "$(A)", "": "empty"}
	for in, want := range map[string]string{
		"": "", "$": "$", "$$": "$", "x$(A)y": "x1y", "$(B)": "$(A)", "$(NO)": "$(NO)", "$$(A)": "$(A)", "$(A": "$(A", "$A": "$A",
		"$(A)$(A)": "11", "$()": "empty", "a)$(A)": "a)1", "$($(A)": "$($(A)", "cost$": "cost$",
	} {
		if got := Expand(in, values); got != want {
			t.Errorf("Expand(%q) = %q, want %q", in, got, want)
		}
	}
}

func FuzzExpand(f *testing.F) {
	for _, s := range []string{"", "$", "$(A)", "$$(A)", "$(A", "a)$(A)", "$)("} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got := Expand(s, nil)
		if !strings.Contains(s, "$$") && got != s {
			t.Errorf("Expand(%q) = %q without values: want it unchanged", s, got)
		}
	})
}

func testValues() *Values {
	p := &corev1.Pod{}
	p.Namespace, p.Name, p.UID = "ns", "web", "u1"
	p.Labels = map[string]string{"app": "x"}
	p.Spec.NodeName = "kube-node1"
	return &Values{
		Pod: p, IPs: []netip.Addr{netip.MustParseAddr("10.1.0.2"), netip.MustParseAddr("fd00::2")},
		HostIPs: []netip.Addr{netip.MustParseAddr("172.17.42.31")},
		Services: []api.ServicePort{
			{
				Name: api.ServicePortName{Namespace: "default", Name: "kubernetes", Port: "https"}, Protocol: api.TCP, Port: 443,
				ClusterIPs: []netip.Addr{netip.MustParseAddr("10.254.0.1")},
			},
			{
				Name: api.ServicePortName{Namespace: "ns", Name: "my-nginx"}, Protocol: api.TCP, Port: 8080,
				ClusterIPs: []netip.Addr{netip.MustParseAddr("10.254.0.9")},
			},
			{
				Name: api.ServicePortName{Namespace: "other", Name: "hidden"}, Protocol: api.TCP, Port: 1,
				ClusterIPs: []netip.Addr{netip.MustParseAddr("10.254.0.10")},
			},
		},
		ConfigMap: func(name string) (map[string]string, error) {
			if name == "conf" {
				return map[string]string{"k": "v", "j": "w"}, nil
			}
			return nil, fmt.Errorf("configmap %s: %w", name, ErrMissing)
		},
		Secret: func(name string) (map[string][]byte, error) {
			if name == "sec" {
				return map[string][]byte{"pw": []byte("hush")}, nil
			}
			return nil, errors.New("forbidden")
		},
	}
}

func TestEnv(t *testing.T) {
	field := func(path string) *corev1.EnvVarSource {
		return &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: path}}
	}
	ref := func(name string) corev1.LocalObjectReference { return corev1.LocalObjectReference{Name: name} }
	yes := true
	c := &corev1.Container{
		Name:    "c",
		EnvFrom: []corev1.EnvFromSource{{Prefix: "P_", ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: ref("conf")}}},
		Env: []corev1.EnvVar{
			{Name: "A", Value: "1"},
			{Name: "B", Value: "$(A)$(P_k) $(MY_NGINX_SERVICE_HOST)"},
			{Name: "NAME", ValueFrom: field("metadata.name")},
			{Name: "IP", ValueFrom: field("status.podIP")},
			{Name: "IPS", ValueFrom: field("status.podIPs")},
			{Name: "APP", ValueFrom: field("metadata.labels['app']")},
			{Name: "NODE", ValueFrom: field("spec.nodeName")},
			{Name: "CPU", ValueFrom: &corev1.EnvVarSource{ResourceFieldRef: &corev1.ResourceFieldSelector{Resource: "limits.cpu"}}},
			{Name: "MEM", ValueFrom: &corev1.EnvVarSource{ResourceFieldRef: &corev1.ResourceFieldSelector{
				Resource: "requests.memory", Divisor: resource.MustParse("1Mi"),
			}}},
			{Name: "PW", ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: ref("sec"), Key: "pw"}}},
			{Name: "GONE", ValueFrom: &corev1.EnvVarSource{ConfigMapKeyRef: &corev1.ConfigMapKeySelector{
				LocalObjectReference: ref("no"), Key: "k", Optional: &yes,
			}}},
			{Name: "A", Value: "2"},
		},
	}
	c.Resources.Limits = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1500m")}
	c.Resources.Requests = corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("64Mi")}
	c.Args = []string{"$(NAME)", "$$(NAME)", "$(NO)"}
	spec, err := Container(testValues(), c, 3)
	if err != nil {
		t.Fatal(err)
	}
	if spec.Attempt != 3 || !slices.Equal(spec.Args, []string{"web", "$(NAME)", "$(NO)"}) {
		t.Errorf("container %+v", spec)
	}
	got := spec.Env
	want := []string{
		"KUBERNETES_SERVICE_HOST=10.254.0.1", "KUBERNETES_SERVICE_PORT=443", "KUBERNETES_PORT=tcp://10.254.0.1:443",
		"KUBERNETES_SERVICE_PORT_HTTPS=443", "KUBERNETES_PORT_443_TCP=tcp://10.254.0.1:443", "KUBERNETES_PORT_443_TCP_PROTO=tcp",
		"KUBERNETES_PORT_443_TCP_PORT=443", "KUBERNETES_PORT_443_TCP_ADDR=10.254.0.1",
		"MY_NGINX_SERVICE_HOST=10.254.0.9", "MY_NGINX_SERVICE_PORT=8080", "MY_NGINX_PORT=tcp://10.254.0.9:8080",
		"MY_NGINX_PORT_8080_TCP=tcp://10.254.0.9:8080", "MY_NGINX_PORT_8080_TCP_PROTO=tcp", "MY_NGINX_PORT_8080_TCP_PORT=8080",
		"MY_NGINX_PORT_8080_TCP_ADDR=10.254.0.9",
		"P_j=w", "P_k=v", "A=2", "B=1v 10.254.0.9", "NAME=web", "IP=10.1.0.2", "IPS=10.1.0.2,fd00::2", "APP=x", "NODE=kube-node1",
		"CPU=2", "MEM=64", "PW=hush",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestEnvErrors(t *testing.T) {
	for want, source := range map[string]*corev1.EnvVarSource{
		`fieldRef "spec.foo"`: {FieldRef: &corev1.ObjectFieldSelector{FieldPath: "spec.foo"}},
		`key "x" of configmap "conf"`: {ConfigMapKeyRef: &corev1.ConfigMapKeySelector{
			LocalObjectReference: corev1.LocalObjectReference{Name: "conf"}, Key: "x",
		}},
		"forbidden":                   {SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: "no"}, Key: "x"}},
		"limits.cpu":                  {ResourceFieldRef: &corev1.ResourceFieldSelector{Resource: "limits.cpu"}},
		"this node does not know":     {},
		"resourceFieldRef of another": {ResourceFieldRef: &corev1.ResourceFieldSelector{Resource: "limits.cpu", ContainerName: "other"}},
	} {
		c := &corev1.Container{Name: "c", Env: []corev1.EnvVar{{Name: "X", ValueFrom: source}}}
		_, err := Container(testValues(), c, 0)
		if err == nil || !strings.Contains(err.Error(), "env X: ") || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want env X: ...%s...", err, want)
		}
	}
}

func TestUnsupported(t *testing.T) {
	p := &corev1.Pod{}
	p.Spec.Volumes = []corev1.Volume{
		{Name: "tmp", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}},
		{Name: "host", VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/srv"}}},
		{Name: "token", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{}}},
	}
	for _, c := range []struct{ name, path, want string }{
		{"token", "/var/run/secrets/kubernetes.io/serviceaccount", ""},
		{"host", "/srv/", ""},
		{"host", "/data", "(hostPath) cannot be mounted at /data"},
		{"tmp", "/tmp", "(emptyDir) cannot be mounted at /tmp"},
		{"token", "/x", "(projected) cannot be mounted"},
	} {
		got := Unsupported(p, &corev1.Container{Name: "c", VolumeMounts: []corev1.VolumeMount{{Name: c.name, MountPath: c.path}}})
		if c.want == "" && got != "" || !strings.Contains(got, c.want) {
			t.Errorf("%s at %s: %q, want %q", c.name, c.path, got, c.want)
		}
	}
}

func TestSandboxSpec(t *testing.T) {
	p := &corev1.Pod{}
	p.Namespace, p.Name, p.UID = "ns", strings.Repeat("x", 62)+".yz", "u"
	p.Spec.DNSPolicy = corev1.DNSClusterFirst
	s := Sandbox(p, []netip.Addr{netip.MustParseAddr("10.254.0.10")}, "cluster.local")
	if s.Hostname != strings.Repeat("x", 62) {
		t.Errorf("hostname %q", s.Hostname)
	}
	if diff := cmp.Diff([]string{"ns.svc.cluster.local", "svc.cluster.local", "cluster.local"}, s.Searches); diff != "" {
		t.Error(diff)
	}
	p.Spec.HostNetwork, p.Spec.Hostname = true, "me"
	if s := Sandbox(p, []netip.Addr{netip.MustParseAddr("10.254.0.10")}, "x"); s.Hostname != "me" || len(s.Nameservers) != 0 {
		t.Errorf("host network pod: %+v", s)
	}
}
