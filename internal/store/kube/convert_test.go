package kube

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"weft/internal/api"
)

func decode[T any](t testing.TB, text string) *T {
	t.Helper()
	var out T
	if err := json.Unmarshal([]byte(text), &out); err != nil {
		t.Fatalf("decode %s: %v", text, err)
	}
	return &out
}

// service is a service of namespace ns named web with the rest of its spec, and labels.
func service(t testing.TB, spec, labels string) *corev1.Service {
	return decode[corev1.Service](t, fmt.Sprintf(`{"metadata":{"namespace":"ns","name":"web","labels":{%s}},"spec":{%s}}`, labels, spec))
}

func endpointSlice(t testing.TB, name, family, ports, endpoints string) *discoveryv1.EndpointSlice {
	return decode[discoveryv1.EndpointSlice](t, fmt.Sprintf(
		`{"metadata":{"namespace":"ns","name":"%s","labels":{"kubernetes.io/service-name":"web"}},"addressType":"%s","ports":[%s],"endpoints":[%s]}`,
		name, family, ports, endpoints))
}

// labelled is the slice with one more label.
func labelled(e *discoveryv1.EndpointSlice, label string) *discoveryv1.EndpointSlice {
	e.Labels[label] = ""
	return e
}

// text prints ports so that a golden line shows what matters.
func text(ports []api.ServicePort) string {
	var out []string
	for _, p := range ports {
		var ends []string
		for _, e := range p.Endpoints {
			s := e.Addr.String()
			if e.Node != "" {
				s += "@" + e.Node
			}
			for _, f := range []struct {
				on bool
				c  string
			}{{e.Ready, "r"}, {e.Serving, "s"}, {e.Terminating, "t"}} {
				if f.on {
					s += f.c
				}
			}
			ends = append(ends, s)
		}
		out = append(out, fmt.Sprintf("%s %s %v:%d %v", p.Name, p.Protocol, p.ClusterIPs, p.Port, ends))
	}
	return strings.Join(out, "\n")
}

const plain = `"clusterIP":"10.254.0.9","ports":[{"port":8080,"protocol":"TCP","targetPort":80}]`

func TestServicePorts(t *testing.T) {
	const unnamed = `{"port":80,"protocol":"TCP"}`
	for _, c := range []struct {
		name, spec, labels string
		slices             []*discoveryv1.EndpointSlice
		want               string
	}{
		{
			name: "several slices, an endpoint in both, unnamed port", spec: plain,
			slices: []*discoveryv1.EndpointSlice{
				endpointSlice(t, "a", "IPv4", unnamed, `{"addresses":["10.1.0.3"],"nodeName":"n2","conditions":{"ready":false}},{"addresses":["10.1.0.2"],"nodeName":"n1"}`),
				endpointSlice(t, "b", "IPv4", unnamed, `{"addresses":["10.1.0.3"],"nodeName":"n2","conditions":{"ready":true}}`),
			},
			want: "ns/web: TCP [10.254.0.9]:8080 [10.1.0.2:80@n1rs 10.1.0.3:80@n2rs]",
		},
		{
			name: "both families, named ports of two protocols",
			spec: `"clusterIP":"10.254.0.9","clusterIPs":["10.254.0.9","fd00::9"],"ports":[{"name":"dns","port":53,"protocol":"UDP"},{"name":"dns-tcp","port":53}]`,
			slices: []*discoveryv1.EndpointSlice{
				endpointSlice(t, "a", "IPv4", `{"name":"dns","port":5353,"protocol":"UDP"},{"name":"dns-tcp","port":5354,"protocol":"TCP"}`, `{"addresses":["10.1.0.2"]}`),
				endpointSlice(t, "b", "IPv6", `{"name":"dns","port":5353,"protocol":"UDP"}`, `{"addresses":["fd01::2"]}`),
			},
			want: "ns/web:dns UDP [10.254.0.9 fd00::9]:53 [10.1.0.2:5353rs [fd01::2]:5353rs]\n" +
				"ns/web:dns-tcp TCP [10.254.0.9 fd00::9]:53 [10.1.0.2:5354rs]",
		},
		{
			name: "conditions: unset is ready, and serving even where it is not ready; terminating serves", spec: plain,
			slices: []*discoveryv1.EndpointSlice{endpointSlice(t, "a", "IPv4", unnamed,
				`{"addresses":["10.1.0.1"]},{"addresses":["10.1.0.2"],"conditions":{"ready":false}},`+
					`{"addresses":["10.1.0.3"],"conditions":{"ready":false,"serving":true,"terminating":true}},`+
					`{"addresses":["10.1.0.4"],"conditions":{"ready":true,"serving":false}},`+
					`{"addresses":["10.1.0.5"],"conditions":{"ready":false,"terminating":true}}`)},
			want: "ns/web: TCP [10.254.0.9]:8080 [10.1.0.1:80rs 10.1.0.2:80s 10.1.0.3:80st 10.1.0.4:80r 10.1.0.5:80st]",
		},
		{
			name: "hostile addresses and ports", spec: plain,
			slices: []*discoveryv1.EndpointSlice{
				endpointSlice(t, "a", "IPv4", unnamed+`,{"port":0},{"port":70000},{},{"name":"","port":81,"protocol":"XXX"}`,
					`{"addresses":["127.0.0.1"]},{"addresses":["169.254.1.1"]},{"addresses":["0.0.0.0"]},{"addresses":["224.0.0.1"]},`+
						`{"addresses":["fd00::1"]},{"addresses":["x"]},{"addresses":[]},{"addresses":["010.1.0.1"]},{"addresses":["10.1.0.9"]}`),
				endpointSlice(t, "b", "IPv6", unnamed, `{"addresses":["fe80::1%eth0"]},{"addresses":["::ffff:10.1.0.8"]},{"addresses":["::1"]}`),
				endpointSlice(t, "c", "FQDN", unnamed, `{"addresses":["example.com"]}`),
			},
			want: "ns/web: TCP [10.254.0.9]:8080 [10.1.0.9:80rs]",
		},
		{
			name: "two ports of one name", spec: `"clusterIP":"10.254.0.9","ports":[{"name":"a","port":80},{"name":"a","port":81},{"name":"a","port":81,"protocol":"UDP"}]`,
			want: "ns/web:a TCP [10.254.0.9]:80 []\nns/web:a UDP [10.254.0.9]:81 []",
		},
		{
			name: "slices of another proxy and of a headless service", spec: plain,
			slices: []*discoveryv1.EndpointSlice{
				labelled(endpointSlice(t, "a", "IPv4", unnamed, `{"addresses":["10.1.0.1"]}`), "service.kubernetes.io/service-proxy-name"),
				labelled(endpointSlice(t, "b", "IPv4", unnamed, `{"addresses":["10.1.0.2"]}`), "service.kubernetes.io/headless"),
				endpointSlice(t, "c", "IPv4", unnamed, `{"addresses":["10.1.0.3"]}`),
			},
			want: "ns/web: TCP [10.254.0.9]:8080 [10.1.0.3:80rs]",
		},
		{name: "headless", spec: `"clusterIP":"None","ports":[{"port":80}]`},
		{name: "ExternalName", spec: `"type":"ExternalName","externalName":"x","ports":[{"port":80}]`},
		{name: "another proxy's", spec: plain, labels: `"service.kubernetes.io/service-proxy-name":"other"`},
		{name: "no address yet", spec: `"ports":[{"port":80}]`},
		{name: "no endpoints", spec: plain, want: "ns/web: TCP [10.254.0.9]:8080 []"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := text(ServicePorts(service(t, c.spec, c.labels), c.slices))
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestServiceFields(t *testing.T) {
	s := service(t, `"type":"LoadBalancer","clusterIP":"10.254.0.9","externalIPs":["192.0.2.1"],"externalTrafficPolicy":"Local",
		"internalTrafficPolicy":"Local","healthCheckNodePort":30111,"sessionAffinity":"ClientIP","publishNotReadyAddresses":true,
		"loadBalancerSourceRanges":[" 198.51.100.7/24","nonsense"],"ports":[{"port":80,"nodePort":30080}]`, "")
	proxy := corev1.LoadBalancerIPModeProxy
	s.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: "203.0.113.1"}, {IP: "203.0.113.2", IPMode: &proxy}, {Hostname: "x"}}
	want := []api.ServicePort{{
		Name: api.ServicePortName{Namespace: "ns", Name: "web"}, Protocol: api.TCP, Port: 80, NodePort: 30080,
		ClusterIPs: []netip.Addr{netip.MustParseAddr("10.254.0.9")}, External: []netip.Addr{netip.MustParseAddr("192.0.2.1")},
		LoadBalancer:    []netip.Prefix{netip.MustParsePrefix("203.0.113.1/32")},
		SourceRanges:    []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")},
		BalancerProxies: true, AffinitySeconds: 10800, ExternalLocal: true, InternalLocal: true, HealthCheckNodePort: 30111, PublishNotReady: true,
	}}
	eq := cmp.Comparer(func(a, b netip.Addr) bool { return a == b })
	eqp := cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })
	if diff := cmp.Diff(want, convertService(s), eq, eqp); diff != "" {
		t.Error(diff)
	}
	s.Spec.LoadBalancerSourceRanges = []string{"nonsense"}
	if got := convertService(s)[0]; len(got.SourceRanges) == 0 || got.SourceRanges[0] != netip.MustParsePrefix("0.0.0.0/32") {
		t.Errorf("unreadable source ranges leave the balancer's address open to %v", got.SourceRanges)
	}
	s.Status.LoadBalancer.Ingress = s.Status.LoadBalancer.Ingress[:1]
	if convertService(s)[0].BalancerProxies {
		t.Error("a balancer with an address of the node's does not proxy")
	}
}

// TestAddressesOfOtherFamilies: the node answers at addresses of the families that the service has, as kube-proxy does. A balancer with an address
// of another family translates, and packets of pods must go there; of externalIPs it is said that they are not served.
func TestAddressesOfOtherFamilies(t *testing.T) {
	s := service(t, `"type":"LoadBalancer","clusterIP":"10.254.0.9","externalIPs":["192.0.2.1","2001:db8::1","","192.0.2.01"],"ports":[{"port":80}]`, "")
	s.Annotations = map[string]string{annotationBalance: "x"}
	s.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: "203.0.113.1"}, {IP: "2001:db8::2"}}
	got := convertService(s)[0]
	if x := fmt.Sprint(got.External, got.LoadBalancer); x != "[192.0.2.1] [203.0.113.1/32]" {
		t.Errorf("have %s", x)
	}
	for _, want := range []string{annotationBalance, "externalIPs 2001:db8::1: the service has no", `externalIPs "192.0.2.01": want`} {
		if !strings.Contains(got.Refused, want) {
			t.Errorf("no %q in %s", want, got.Refused)
		}
	}
	s.Spec.ClusterIPs = []string{"10.254.0.9", "fd00::9"}
	if x := fmt.Sprint(convertService(s)[0].External, convertService(s)[0].LoadBalancer); x != "[192.0.2.1 2001:db8::1] [203.0.113.1/32 2001:db8::2/128]" {
		t.Errorf("dual stack: %s", x)
	}
}

func TestConvertNode(t *testing.T) {
	n := decode[corev1.Node](t, `{"metadata":{"name":"n1","labels":{"topology.kubernetes.io/zone":"z"}},
		"spec":{"podCIDR":"172.16.28.0/24","podCIDRs":["172.16.28.0/24","172.16.29.0/24","fd00:1::/64"]},
		"status":{"addresses":[{"type":"Hostname","address":"n1"},{"type":"InternalIP","address":"172.17.42.31"},
		{"type":"InternalIP","address":"fd00::31"},{"type":"InternalIP","address":"bad"}],"conditions":[{"type":"Ready","status":"True"}]}}`)
	got := convertNode(n)
	if fmt.Sprintf("%v %v %v %s", got.Addresses, got.PodCIDRs, got.Ready, got.Zone()) != "[172.17.42.31 fd00::31] [172.16.28.0/24 fd00:1::/64] true z" {
		t.Errorf("node %+v", got)
	}
	for text, want := range map[string]bool{
		`{"metadata":{"name":"n1"}}`: false,
		`{"metadata":{"name":"n1"},"spec":{"taints":[{"key":"node.kubernetes.io/unschedulable","effect":"NoSchedule"}]}}`: false,
		`{"metadata":{"name":"n1"},"spec":{"taints":[{"key":"ToBeDeletedByClusterAutoscaler","effect":"NoSchedule"}]}}`:   true,
		`{"metadata":{"name":"n1","deletionTimestamp":"2026-01-01T00:00:00Z","finalizers":["a.example/b"]}}`:              true,
	} {
		if got := convertNode(decode[corev1.Node](t, text)); got.Leaving != want {
			t.Errorf("%s: leaving %v, want %v", text, got.Leaving, want)
		}
	}
}

// FuzzServicePorts feeds slices as an API server without validation could send them: nothing panics, and what comes out can be
// programmed.
func FuzzServicePorts(f *testing.F) {
	f.Add([]byte(`{"clusterIP":"10.254.0.9","ports":[{"port":8080}]}`), []byte(`{"addressType":"IPv4","ports":[{"port":80}],"endpoints":[{"addresses":["10.1.0.3"]}]}`))
	f.Add([]byte(`{"clusterIPs":["::ffff:1.2.3.4","x"],"ports":[{"port":-1},{"port":70000,"nodePort":-3}]}`), []byte(`{"addressType":"IPv6","ports":[{}],"endpoints":[{"addresses":["fe80::1%x"]},{}]}`))
	f.Fuzz(func(t *testing.T, spec, slice []byte) {
		var s corev1.Service
		var e discoveryv1.EndpointSlice
		if json.Unmarshal(spec, &s.Spec) != nil || json.Unmarshal(slice, &e) != nil {
			return
		}
		s.Namespace, s.Name, e.Namespace = "ns", "web", "ns"
		e.Labels = map[string]string{discoveryv1.LabelServiceName: "web"}
		for _, p := range ServicePorts(&s, []*discoveryv1.EndpointSlice{&e, &e}) {
			if p.Port == 0 || len(p.ClusterIPs) == 0 {
				t.Errorf("port %+v cannot be programmed", p)
			}
			if !slices.IsSortedFunc(p.Endpoints, func(a, b api.Endpoint) int { return a.Addr.Compare(b.Addr) }) {
				t.Errorf("endpoints not sorted: %v", p.Endpoints)
			}
			for i, end := range p.Endpoints {
				a := end.Addr.Addr()
				if end.Addr.Port() == 0 || a.Zone() != "" || a.Is4In6() || a.IsUnspecified() || a.IsMulticast() || a.IsLoopback() {
					t.Errorf("endpoint %v cannot be programmed", end)
				}
				if i > 0 && p.Endpoints[i-1].Addr == end.Addr {
					t.Errorf("endpoint %v twice", end)
				}
			}
		}
	})
}

func TestHints(t *testing.T) {
	s := service(t, `"clusterIP":"10.254.0.9","ports":[{"port":80}]`, "")
	e := endpointSlice(t, "web-1", "IPv4", `{"port":80,"protocol":"TCP","name":""}`,
		`{"addresses":["10.1.0.3"],"hints":{"forZones":[{"name":"z2"},{"name":"z1"}],"forNodes":[{"name":"n1"}]}},{"addresses":["10.1.0.4"]}`)
	got := ServicePorts(s, []*discoveryv1.EndpointSlice{e})[0].Endpoints
	if len(got) != 2 || got[0].ZoneHints != "z1,z2" || got[0].NodeHints != "n1" || got[1].ZoneHints != "" {
		t.Errorf("have %+v", got)
	}
}
