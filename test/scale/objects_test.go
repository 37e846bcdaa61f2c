package scale

import (
	"fmt"
	"net/netip"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// node is the one the agent runs on.
func node() *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "bench"}}
	n.Spec.PodCIDR, n.Spec.PodCIDRs = "10.1.0.0/24", []string{"10.1.0.0/24"}
	n.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: hostIP}}
	return n
}

const (
	hostIP      = "172.17.200.1"
	servicePort = 80
	targetPort  = 8080
)

// vip is the address of the ith service.
func vip(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 254, byte(i >> 8), byte(i)}) }

// service is the ith one. There are many in a namespace, as in real clusters.
func service(i int, protocol corev1.Protocol) *corev1.Service {
	s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{
		Namespace: fmt.Sprintf("team-%02d", i%50), Name: fmt.Sprintf("service-%05d", i),
		UID: types.UID(fmt.Sprintf("00000000-0000-0000-0001-%012d", i)), CreationTimestamp: metav1.NewTime(time.Unix(1.7e9, 0)),
		Labels: map[string]string{"app.kubernetes.io/name": fmt.Sprintf("service-%05d", i)},
	}}
	s.Spec.Type, s.Spec.SessionAffinity = corev1.ServiceTypeClusterIP, corev1.ServiceAffinityNone
	s.Spec.ClusterIP, s.Spec.ClusterIPs = vip(i).String(), []string{vip(i).String()}
	s.Spec.IPFamilies, s.Spec.IPFamilyPolicy = []corev1.IPFamily{corev1.IPv4Protocol}, new(corev1.IPFamilyPolicySingleStack)
	s.Spec.InternalTrafficPolicy = new(corev1.ServiceInternalTrafficPolicyCluster)
	s.Spec.Selector = s.Labels
	s.Spec.Ports = []corev1.ServicePort{{Name: "main", Protocol: protocol, Port: servicePort, TargetPort: intstr.FromInt32(targetPort)}}
	return s
}

// endpoint is a pod of another node.
func endpoint(addr netip.Addr, i, j int) discoveryv1.Endpoint {
	return discoveryv1.Endpoint{
		Addresses:  []string{addr.String()},
		Conditions: discoveryv1.EndpointConditions{Ready: new(true), Serving: new(true), Terminating: new(false)},
		NodeName:   new(fmt.Sprintf("node-%03d.example.internal", (i+j)%250)), Zone: new(fmt.Sprintf("zone-%c", 'a'+(i+j)%3)),
		TargetRef: &corev1.ObjectReference{
			Kind: "Pod", Namespace: fmt.Sprintf("team-%02d", i%50), Name: fmt.Sprintf("service-%05d-6d4cf56db6-%05d", i, j),
			UID: types.UID(fmt.Sprintf("00000000-0000-0002-%04d-%012d", j, i)),
		},
	}
}

// slice is the EndpointSlice of the ith service with the endpoints.
func slice(i int, protocol corev1.Protocol, port uint16, endpoints ...discoveryv1.Endpoint) *discoveryv1.EndpointSlice {
	s := service(i, protocol)
	return &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: s.Namespace, Name: s.Name + "-x7k2p", UID: types.UID(fmt.Sprintf("00000000-0000-0003-0001-%012d", i)),
			Labels: map[string]string{
				discoveryv1.LabelServiceName: s.Name, discoveryv1.LabelManagedBy: "endpointslice-controller.k8s.io",
				"app.kubernetes.io/name": s.Name,
			},
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Service", Name: s.Name, UID: s.UID, Controller: new(true)}},
		},
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports:       []discoveryv1.EndpointPort{{Name: new("main"), Protocol: &protocol, Port: new(int32(port))}},
		Endpoints:   endpoints,
	}
}

// podAddr is the address of the jth endpoint of the ith service: any two services share none.
func podAddr(i, j int) netip.Addr {
	n := i*16 + j
	return netip.AddrFrom4([4]byte{10, byte(16 + n>>16), byte(n >> 8), byte(n)})
}

// tenOf are ten endpoints of the ith service; the one of turn has another address in each turn.
func tenOf(i, turn int) []discoveryv1.Endpoint {
	out := make([]discoveryv1.Endpoint, 10)
	for j := range out {
		out[j] = endpoint(podAddr(i, j), i, j)
	}
	if turn > 0 {
		out[turn%10] = endpoint(podAddr(i, 10+turn%5), i, 10+turn%5)
	}
	return out
}

// fill makes n services with ten endpoints each.
func (c *cluster) fill(n int) {
	c.put(nodesPath, node())
	for i := range n {
		c.put(servicesPath, service(i, corev1.ProtocolTCP))
		c.put(slicesPath, slice(i, corev1.ProtocolTCP, targetPort, tenOf(i, 0)...))
	}
}
