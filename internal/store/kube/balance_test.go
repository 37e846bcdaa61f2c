package kube

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"weft/internal/api"
)

func annotated(annotations map[string]string) *corev1.Service {
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web", Annotations: annotations},
		Spec:       corev1.ServiceSpec{ClusterIP: "10.254.0.9", Ports: []corev1.ServicePort{{Port: 80}}},
	}
}

func TestBalance(t *testing.T) {
	for _, c := range []struct {
		value   string
		want    api.Balance
		refused string
	}{
		{"maglev", api.Maglev, ""},
		{" least-connections ", api.LeastConnections, ""},
		{"round-robin", api.RoundRobin, ""},
		{"Maglev", "", `weft.dev/balance="Maglev": want round-robin, maglev or least-connections; round-robin is used`},
		{"", "", `weft.dev/balance=""`},
		{strings.Repeat("x", 1000), "", `xxx"...: want`},
	} {
		got := ServicePorts(annotated(map[string]string{"weft.dev/balance": c.value}), nil)
		if len(got) != 1 || got[0].Balance != c.want || !strings.Contains(got[0].Refused, c.refused) || (c.refused == "") != (got[0].Refused == "") {
			t.Errorf("%q: %+v, want %q, refused %q", c.value, got, c.want, c.refused)
		}
	}
}

func TestWeights(t *testing.T) {
	end := func(ip, node, zone, pod string) discoveryv1.Endpoint {
		return discoveryv1.Endpoint{Addresses: []string{ip}, NodeName: &node, Zone: &zone, TargetRef: &corev1.ObjectReference{Kind: "Pod", Name: pod}}
	}
	port := int32(8080)
	s := &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Namespace: "default", Name: "web-1", Labels: map[string]string{discoveryv1.LabelServiceName: "web"}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports:       []discoveryv1.EndpointPort{{Port: &port}},
		Endpoints: []discoveryv1.Endpoint{
			end("10.0.0.1", "n1", "a", "web-x"), end("10.0.0.2", "n2", "a", "web-canary-y"), end("10.0.0.3", "n3", "b", "web-z"), {Addresses: []string{"10.0.0.4"}},
		},
	}
	for _, c := range []struct {
		value   string
		want    [4]uint8
		refused string
	}{
		{"pod/web-canary-*=1, pod/web-*=9", [4]uint8{9, 1, 9, 0}, ""},
		{"node/n1=2 zone/a=3", [4]uint8{2, 3, 0, 0}, ""},
		{"zone/*=4", [4]uint8{4, 4, 4, 0}, ""},
		{"", [4]uint8{}, ""},
		{"zone/a=0", [4]uint8{}, `rule "zone/a=0": want a weight from 1 to 100; all endpoints have equal weight`},
		{"zone/a=101", [4]uint8{}, "1 to 100"},
		{"region/a=1", [4]uint8{}, "want zone/NAME=WEIGHT"},
		{"zone/a=1,pod/*x=2", [4]uint8{}, "a * may only be the last"},
		{"zone/=1", [4]uint8{}, "want zone/NAME"},
		{strings.Repeat("zone/a=1,", 65), [4]uint8{}, "65 rules"},
		{strings.Repeat(" ", 5000), [4]uint8{}, "5000 bytes"},
	} {
		got := ServicePorts(annotated(map[string]string{"weft.dev/weights": c.value}), []*discoveryv1.EndpointSlice{s})
		if !strings.Contains(got[0].Refused, c.refused) || (c.refused == "") != (got[0].Refused == "") {
			t.Errorf("%q: refused %q, want %q", c.value, got[0].Refused, c.refused)
		}
		for i, e := range got[0].Endpoints {
			if e.Weight != c.want[i] {
				t.Errorf("%q: %s has weight %d, want %d", c.value, e.Addr, e.Weight, c.want[i])
			}
		}
	}
}

func FuzzWeights(f *testing.F) {
	f.Add("zone/a=3,node/n1=2,pod/web-*=1")
	f.Fuzz(func(t *testing.T, text string) {
		rules, err := parseWeights(text)
		if err != nil {
			return
		}
		for _, r := range rules {
			if r.weight < 1 || r.weight > maxWeight {
				t.Errorf("%q: weight %d", text, r.weight)
			}
		}
	})
}
