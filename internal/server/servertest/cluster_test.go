package servertest

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes"
)

// join makes a node as an agent does, with the node's own identity, and returns its client.
func join(t *testing.T, s *server, name string, port int) kubernetes.Interface {
	t.Helper()
	ctx, client := within(t), s.client("nodes/"+name+".kubeconfig")
	_, err := client.CoreV1().Nodes().Create(ctx, &v1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{v1.LabelHostname: name}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	// A patch: the server taints a new node at once, and an update would carry the taints of a moment ago.
	status, err := json.Marshal(map[string]any{"status": v1.NodeStatus{
		Addresses:       []v1.NodeAddress{{Type: v1.NodeInternalIP, Address: address}},
		DaemonEndpoints: v1.NodeDaemonEndpoints{KubeletEndpoint: v1.DaemonEndpoint{Port: int32(port)}},
		Capacity: v1.ResourceList{
			v1.ResourceCPU: resource.MustParse("2"), v1.ResourceMemory: resource.MustParse("4Gi"), v1.ResourcePods: resource.MustParse("110"),
		},
		Conditions: []v1.NodeCondition{{Type: v1.NodeReady, Status: v1.ConditionTrue, Reason: "Test", LastHeartbeatTime: metav1.Now()}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.CoreV1().Nodes().PatchStatus(ctx, name, status); err != nil {
		t.Fatal(err)
	}
	await(t, 10*time.Second, "untainted node", func() bool {
		node, err := client.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{})
		return err == nil && len(node.Spec.Taints) == 0
	})
	return client
}

// kubelet answers as a node's server and tells who asked.
func kubelet(t *testing.T) (port int, asked <-chan string) {
	t.Helper()
	who := make(chan string, 1)
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if len(r.TLS.PeerCertificates) > 0 {
			who <- r.TLS.PeerCertificates[0].Subject.CommonName
		}
		fmt.Fprint(w, "hello from ", r.URL.Path)
	}))
	srv.Listener.Close()
	l, err := net.Listen("tcp", address+":0")
	if err != nil {
		t.Fatal(err)
	}
	srv.Listener, srv.TLS = l, &tls.Config{ClientAuth: tls.RequireAnyClientCert}
	srv.StartTLS()
	t.Cleanup(srv.Close)
	_, text, _ := net.SplitHostPort(l.Addr().String())
	port, _ = strconv.Atoi(text)
	return port, who
}

func controller(replicas int32) *v1.ReplicationController {
	labels := map[string]string{"app": "my-nginx"}
	return &v1.ReplicationController{
		ObjectMeta: metav1.ObjectMeta{Name: "nginx"},
		Spec: v1.ReplicationControllerSpec{
			Replicas: &replicas, Selector: labels,
			Template: &v1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: v1.PodSpec{
				Containers: []v1.Container{{Name: "nginx", Image: "nginx:1.0", Ports: []v1.ContainerPort{{ContainerPort: 80}}}},
			}},
		},
	}
}

// pods lists the controller's pods once all of n are bound, by node.
func pods(t *testing.T, admin kubernetes.Interface, n int) map[string][]v1.Pod {
	t.Helper()
	byNode := map[string][]v1.Pod{}
	await(t, 20*time.Second, fmt.Sprintf("%d bound pods", n), func() bool {
		list, err := admin.CoreV1().Pods("default").List(within(t), metav1.ListOptions{LabelSelector: "app=my-nginx"})
		if err != nil {
			t.Fatal(err)
		}
		clear(byNode)
		bound := 0
		for _, p := range list.Items {
			if p.Spec.NodeName != "" && p.DeletionTimestamp == nil {
				byNode[p.Spec.NodeName] = append(byNode[p.Spec.NodeName], p)
				bound++
			}
		}
		return bound == n && len(list.Items) == n
	})
	return byNode
}

// run reports a pod as running, as its node.
func run(t *testing.T, node kubernetes.Interface, p v1.Pod, ip string) {
	t.Helper()
	p.Status = v1.PodStatus{
		Phase: v1.PodRunning, PodIP: ip, PodIPs: []v1.PodIP{{IP: ip}},
		Conditions: []v1.PodCondition{{Type: v1.PodReady, Status: v1.ConditionTrue}, {Type: v1.ContainersReady, Status: v1.ConditionTrue}},
		ContainerStatuses: []v1.ContainerStatus{{
			Name: "nginx", Ready: true, Image: "nginx:1.0", State: v1.ContainerState{Running: &v1.ContainerStateRunning{}},
		}},
	}
	if _, err := node.CoreV1().Pods(p.Namespace).UpdateStatus(within(t), &p, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// checkLog wants no line in the log of a good life. Upstream's parts race one another and mend it: one that server's list of
// such errors doesn't have is shown, and fails the test when it is said again and again.
func checkLog(t *testing.T, log string) {
	t.Helper()
	upstream := 0
	for line := range strings.Lines(log) {
		if strings.Contains(line, "logger=UnhandledError") {
			upstream++
		} else {
			t.Errorf("in the log of a good life: %s", line)
		}
	}
	if upstream > 0 {
		t.Logf("upstream's own:\n%s", log)
	}
	if upstream > 3 {
		t.Errorf("%d errors of upstream in the log of a good life", upstream)
	}
}

// The walkthrough's cluster on one server: nodes, a controller's pods spread over them, a service with both endpoints,
// all still there after a stop and after a kill.
func TestCluster(t *testing.T) {
	t.Parallel()
	s := newServer(t, "--secure-port=17020", "--listen-client-urls=http://127.0.0.1:17021", "--node-names=kube-node1,kube-node2")
	s.start()
	if m := readyLine.FindStringSubmatch(s.out.String()); m == nil || m[1] != "17020" || m[2] != filepath.Join(s.dir, "admin.kubeconfig") {
		t.Errorf("ready line %q", s.out)
	}
	admin, ctx := s.client("admin.kubeconfig"), within(t)
	port, asked := kubelet(t)
	nodes := map[string]kubernetes.Interface{"kube-node1": join(t, s, "kube-node1", port), "kube-node2": join(t, s, "kube-node2", port)}
	if _, err := admin.CoreV1().ReplicationControllers("default").Create(ctx, controller(2), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	svc, err := admin.CoreV1().Services("default").Create(ctx, &v1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: "my-nginx-service"},
		Spec: v1.ServiceSpec{
			Selector: map[string]string{"app": "my-nginx"}, Ports: []v1.ServicePort{{Port: 8080, TargetPort: intstr.FromInt(80)}},
		},
	}, metav1.CreateOptions{})
	if err != nil || !strings.HasPrefix(svc.Spec.ClusterIP, "10.254.") {
		t.Fatalf("service %v, %v", svc.Spec.ClusterIP, err)
	}
	byNode := pods(t, admin, 2)
	if len(byNode["kube-node1"]) != 1 || len(byNode["kube-node2"]) != 1 {
		t.Errorf("two replicas on two nodes: %d and %d", len(byNode["kube-node1"]), len(byNode["kube-node2"]))
	}
	for i, name := range []string{"kube-node1", "kube-node2"} {
		run(t, nodes[name], byNode[name][0], fmt.Sprintf("172.16.%d.9", i+1))
	}
	t.Run("service", func(t *testing.T) { checkService(t, nodes["kube-node1"], admin) })
	t.Run("node rights", func(t *testing.T) { checkNodeRights(t, nodes["kube-node1"], byNode) })
	t.Run("logs", func(t *testing.T) { checkLogs(t, admin, byNode["kube-node1"][0].Name, asked) })
	t.Run("anonymous", func(t *testing.T) { checkAnonymous(t, "https://"+address+":17020") })
	t.Run("token", func(t *testing.T) { checkToken(t, admin, "https://"+address+":17020") })
	t.Run("node-kubeconfig", func(t *testing.T) { checkNodeKubeconfig(t, s.dir) })
	t.Run("modes", func(t *testing.T) { checkModes(t, s.dir) })
	t.Run("orphan", func(t *testing.T) { checkOrphan(t, admin) })

	before := keysOf(t, s.dir)
	if took := s.stop(); took > 20*time.Second {
		t.Errorf("stop took %v", took)
	}
	checkLog(t, s.log.String())
	s.start()
	checkKept(t, s.client("admin.kubeconfig"), svc.Spec.ClusterIP)
	s.kill()
	s.start()
	checkKept(t, s.client("admin.kubeconfig"), svc.Spec.ClusterIP)
	for name, data := range keysOf(t, s.dir) {
		if before[name] != data {
			t.Errorf("%s changed over the restart", name)
		}
	}
}
