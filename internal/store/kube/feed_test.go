package kube

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"weft/internal/api"
)

func testService(i int, ports ...int32) *corev1.Service {
	s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: fmt.Sprint("ns", i%3), Name: fmt.Sprint("s", i)}}
	s.Spec.ClusterIP = fmt.Sprintf("10.254.%d.%d", i/250, i%250+1)
	for _, p := range ports {
		s.Spec.Ports = append(s.Spec.Ports, corev1.ServicePort{Name: fmt.Sprint("p", p), Port: p})
	}
	return s
}

func testSlice(s *corev1.Service, name string, endpoints ...int) *discoveryv1.EndpointSlice {
	e := &discoveryv1.EndpointSlice{AddressType: discoveryv1.AddressTypeIPv4}
	e.Namespace, e.Name = s.Namespace, s.Name+name
	e.Labels = map[string]string{discoveryv1.LabelServiceName: s.Name}
	for _, p := range s.Spec.Ports {
		name, port := p.Name, p.Port+8000
		e.Ports = append(e.Ports, discoveryv1.EndpointPort{Name: &name, Port: &port})
	}
	for _, i := range endpoints {
		node := "node"
		e.Endpoints = append(e.Endpoints, discoveryv1.Endpoint{Addresses: []string{fmt.Sprintf("10.1.%d.%d", i/250, i%250+1)}, NodeName: &node})
	}
	return e
}

// step does something random to the tables.
func randomChange(r *rand.Rand, w *Watch) error {
	s := testService(r.IntN(40), []int32{80, 443, 53}[:1+r.IntN(3)]...)
	for range r.IntN(3) { // now and then what another service has or wants
		s.Spec.ExternalIPs = append(s.Spec.ExternalIPs, fmt.Sprintf("10.254.0.%d", r.IntN(60)+1))
	}
	e := testSlice(s, []string{"-a", "-b"}[r.IntN(2)], r.Perm(20)[:r.IntN(5)]...)
	switch r.IntN(6) {
	case 0:
		return w.services.Delete(s)
	case 1:
		return w.slices.Delete(e)
	case 2, 3:
		return w.services.Add(s)
	default:
		return w.slices.Add(e)
	}
}

// TestFeedIsTheSnapshot changes services and slices at random: the feed's list is the one of the snapshots, and its changes lead from
// each list to the next.
func TestFeedIsTheSnapshot(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	w := newWatch()
	f := w.Feed()
	type key struct {
		name     api.ServicePortName
		protocol api.Protocol
	}
	have := map[key]api.ServicePort{}
	version := uint64(0)
	for round := range 500 {
		for range r.IntN(5) {
			if err := randomChange(r, w); err != nil {
				t.Fatal(err)
			}
		}
		if r.IntN(3) == 0 {
			w.Snapshot() // others look, too
		}
		want := w.Snapshot().Services
		got := f.Snapshot()
		if len(want) != len(got.Services) || len(want) > 0 && !reflect.DeepEqual(want, got.Services) {
			t.Fatalf("round %d: the feed has\n%v\nwant\n%v", round, got.Services, want)
		}
		c := got.Changes
		if c.From != version {
			t.Fatalf("round %d: changes from version %d, want %d", round, c.From, version)
		}
		version = c.To
		for _, s := range c.Gone {
			delete(have, key{s.Name, s.Protocol})
		}
		for _, s := range c.Fresh {
			have[key{s.Name, s.Protocol}] = s
		}
		if len(have) != len(got.Services) {
			t.Fatalf("round %d: changes lead to %d services, want %d", round, len(have), len(got.Services))
		}
		for _, s := range got.Services {
			if !reflect.DeepEqual(have[key{s.Name, s.Protocol}], s) {
				t.Fatalf("round %d: changes lead to %v, want %v", round, have[key{s.Name, s.Protocol}], s)
			}
		}
	}
}

// TestFeedLeavesSnapshotsAlone: what others were given does not change under their hands.
func TestFeedLeavesSnapshotsAlone(t *testing.T) {
	w := newWatch()
	s := testService(1, 80)
	for _, err := range []error{w.services.Add(s), w.slices.Add(testSlice(s, "-a", 1))} {
		if err != nil {
			t.Fatal(err)
		}
	}
	f := w.Feed()
	first := w.Snapshot().Services
	f.Snapshot()
	second := w.Snapshot().Services
	if err := w.slices.Add(testSlice(s, "-a", 2)); err != nil {
		t.Fatal(err)
	}
	c := f.Snapshot().Changes
	if len(c.Fresh) != 1 || len(c.Gone) != 0 {
		t.Errorf("one changed service: %+v", c)
	}
	for _, list := range [][]api.ServicePort{first, second} {
		if a := list[0].Endpoints[0].Addr.String(); a != "10.1.0.2:8080" {
			t.Errorf("a snapshot taken before has %s", a)
		}
	}
}

// BenchmarkFeed is one changed slice among 50,000 services.
func BenchmarkFeed(b *testing.B) {
	w := newWatch()
	for i := range 50000 {
		s := testService(i, 80)
		if err := w.services.Add(s); err != nil {
			b.Fatal(err)
		}
		if err := w.slices.Add(testSlice(s, "-a", 1, 2, 3, 4, 5)); err != nil {
			b.Fatal(err)
		}
	}
	f := w.Feed()
	f.Snapshot()
	i := 0
	for b.Loop() {
		i++
		if err := w.slices.Add(testSlice(testService(i*37%50000, 80), "-a", 1, 2, 3, i%200+5)); err != nil {
			b.Fatal(err)
		}
		if c := f.Snapshot().Changes; len(c.Fresh) != 1 {
			b.Fatal(len(c.Fresh))
		}
	}
}
