package servertest

import (
	"crypto/tls"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	authv1 "k8s.io/api/authentication/v1"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// checkService wants both endpoints, as a proxy on a node and as older clients see them.
func checkService(t *testing.T, node, admin kubernetes.Interface) {
	var got []string
	await(t, 10*time.Second, "two endpoints", func() bool {
		slices, err := node.DiscoveryV1().EndpointSlices("default").List(within(t), metav1.ListOptions{
			LabelSelector: "kubernetes.io/service-name=my-nginx-service",
		})
		if err != nil {
			t.Fatal(err)
		}
		got = nil
		for _, s := range slices.Items {
			for _, e := range s.Endpoints {
				got = append(got, e.Addresses...)
			}
		}
		return len(got) == 2
	})

	ep, err := admin.CoreV1().Endpoints("default").Get(within(t), "my-nginx-service", metav1.GetOptions{})
	if err != nil || len(ep.Subsets) != 1 || len(ep.Subsets[0].Addresses) != 2 {
		t.Errorf("endpoints %v, %v", ep.Subsets, err)
	}
	own, err := node.CoreV1().Services("default").Get(within(t), "kubernetes", metav1.GetOptions{})
	if err != nil || own.Spec.ClusterIP != "10.254.0.1" {
		t.Errorf("kubernetes service %v, %v", own, err)
	}
}

// A node reads what a proxy and an overlay need and writes what is its own, and no more.
func checkNodeRights(t *testing.T, node kubernetes.Interface, byNode map[string][]v1.Pod) {
	ctx := within(t)
	core := node.CoreV1()
	patch := []byte(`{"metadata":{"annotations":{"flannel.alpha.coreos.com/public-ip":"172.17.42.31"}}}`)
	own := metav1.ListOptions{FieldSelector: "spec.nodeName=kube-node1"}
	allowed := map[string]func() error{
		"list nodes":    func() error { _, err := core.Nodes().List(ctx, metav1.ListOptions{}); return err },
		"list services": func() error { _, err := core.Services("").List(ctx, metav1.ListOptions{}); return err },
		"list slices": func() error {
			_, err := node.DiscoveryV1().EndpointSlices("").List(ctx, metav1.ListOptions{})
			return err
		},
		"list own pods": func() error { _, err := core.Pods("").List(ctx, own); return err },
		"annotate itself": func() error {
			_, err := core.Nodes().Patch(ctx, "kube-node1", "application/merge-patch+json", patch, metav1.PatchOptions{})
			return err
		},
		"annotate its status": func() error {
			_, err := core.Nodes().Patch(ctx, "kube-node1", "application/merge-patch+json", patch, metav1.PatchOptions{}, "status")
			return err
		},
		"write an event": func() error {
			_, err := core.Events("default").Create(ctx, &v1.Event{
				ObjectMeta: metav1.ObjectMeta{Name: "e"}, InvolvedObject: v1.ObjectReference{Kind: "Node", Name: "kube-node1", Namespace: "default"},
			}, metav1.CreateOptions{})
			return err
		},
	}
	for what, f := range allowed {
		if err := f(); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	refused := map[string]func() error{
		"annotate another node": func() error {
			_, err := core.Nodes().Patch(ctx, "kube-node2", "application/merge-patch+json", patch, metav1.PatchOptions{})
			return err
		},
		"delete another node's pod": func() error {
			return core.Pods("default").Delete(ctx, byNode["kube-node2"][0].Name, metav1.DeleteOptions{})
		},
		"list secrets":     func() error { _, err := core.Secrets("").List(ctx, metav1.ListOptions{}); return err },
		"delete a service": func() error { return core.Services("default").Delete(ctx, "my-nginx-service", metav1.DeleteOptions{}) },
		"make a namespace": func() error {
			_, err := core.Namespaces().Create(ctx, &v1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "x"}}, metav1.CreateOptions{})
			return err
		},
	}
	for what, f := range refused {
		if err := f(); !apierrors.IsForbidden(err) {
			t.Errorf("%s: %v, want it refused", what, err)
		}
	}
}

// kubectl logs reaches the node's server, which sees the API server's certificate.
func checkLogs(t *testing.T, admin kubernetes.Interface, pod string, asked <-chan string) {
	data, err := admin.CoreV1().Pods("default").GetLogs(pod, &v1.PodLogOptions{}).DoRaw(within(t))
	if want := "hello from /containerLogs/default/" + pod + "/nginx"; err != nil || string(data) != want {
		t.Fatalf("logs %q, %v", data, err)
	}
	if name := <-asked; name != "kube-apiserver-kubelet-client" {
		t.Errorf("the node was asked by %q", name)
	}
}

func checkAnonymous(t *testing.T, url string) {
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}, Timeout: 10 * time.Second}
	for _, tc := range []struct {
		path, token string
		want        int
	}{
		{"/healthz", "", 200},
		{"/readyz", "", 200},
		{"/livez", "", 200},
		{"/version", "", 200},
		{"/api/v1/nodes", "", 403},
		{"/api/v1/secrets", "", 403},
		{"/metrics", "", 403},
		{"/openapi/v2", "", 403},
		{"/api/v1/nodes", "wrong", 401},
		{"/healthz", "wrong", 401},
	} {
		req, err := http.NewRequest(http.MethodGet, url+tc.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if tc.token != "" {
			req.Header.Set("Authorization", "Bearer "+tc.token)
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		if resp.StatusCode != tc.want {
			t.Errorf("%s with token %q: %d, want %d", tc.path, tc.token, resp.StatusCode, tc.want)
		}
	}
}

// A service account's token gets in as that account.
func checkToken(t *testing.T, admin kubernetes.Interface, url string) {
	request, err := admin.CoreV1().ServiceAccounts("default").CreateToken(within(t), "default", &authv1.TokenRequest{}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	client, err := kubernetes.NewForConfig(&rest.Config{
		Host: url, BearerToken: request.Status.Token, TLSClientConfig: rest.TLSClientConfig{Insecure: true},
	})
	if err != nil {
		t.Fatal(err)
	}
	self, err := client.AuthenticationV1().SelfSubjectReviews().Create(within(t), &authv1.SelfSubjectReview{}, metav1.CreateOptions{})
	if err != nil || self.Status.UserInfo.Username != "system:serviceaccount:default:default" {
		t.Errorf("the token is %+v, %v", self, err)
	}
}

// The subcommand prints what the server wrote, and makes what it did not.
func checkNodeKubeconfig(t *testing.T, dir string) {
	path, err := program()
	if err != nil {
		t.Fatal(err)
	}
	for _, node := range []string{"kube-node1", "kube-node9"} {
		out, err := exec.Command(path, "node-kubeconfig", node, "--data-dir", dir).Output()
		if err != nil {
			t.Fatal(err)
		}
		kept, err := os.ReadFile(filepath.Join(dir, "nodes", node+".kubeconfig"))
		if err != nil || string(kept) != string(out) || !strings.Contains(string(out), "system:node:"+node) {
			t.Errorf("%s: printed %d bytes, kept %d, %v", node, len(out), len(kept), err)
		}
	}
	if out, err := exec.Command(path, "node-kubeconfig", "../x", "--data-dir", dir).CombinedOutput(); err == nil {
		t.Errorf("made a kubeconfig for ../x: %s", out)
	}
}

// Nothing in the data directory is anybody else's to read.
func checkModes(t *testing.T, dir string) {
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if info, err := d.Info(); err == nil && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s: %v", path, info.Mode())
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// Without a garbage collector a deletion that orphans would hang.
func checkOrphan(t *testing.T, admin kubernetes.Interface) {
	ctx, orphan := within(t), metav1.DeletePropagationOrphan
	rcs := admin.CoreV1().ReplicationControllers("default")
	if err := rcs.Delete(ctx, "nginx", metav1.DeleteOptions{PropagationPolicy: &orphan}); err != nil {
		t.Fatal(err)
	}
	await(t, 15*time.Second, "deletion", func() bool { _, err := rcs.Get(ctx, "nginx", metav1.GetOptions{}); return apierrors.IsNotFound(err) })
	byNode := pods(t, admin, 2)
	for _, list := range byNode {
		if len(list[0].OwnerReferences) != 0 {
			t.Error("an orphan still has its owner")
		}
	}
	// A new controller adopts them.
	if _, err := rcs.Create(ctx, controller(2), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	await(t, 10*time.Second, "adoption", func() bool {
		rc, err := rcs.Get(ctx, "nginx", metav1.GetOptions{})
		return err == nil && rc.Status.ReadyReplicas == 2
	})
}

// checkKept looks for what a restart must not lose, and whether the controllers work again.
func checkKept(t *testing.T, admin kubernetes.Interface, clusterIP string) {
	t.Helper()
	ctx := within(t)
	svc, err := admin.CoreV1().Services("default").Get(ctx, "my-nginx-service", metav1.GetOptions{})
	if err != nil || svc.Spec.ClusterIP != clusterIP {
		t.Errorf("service after restart: %v, %v", svc, err)
	}
	byNode := pods(t, admin, 2)
	victim := byNode["kube-node1"][0]
	now := int64(0)
	if err := admin.CoreV1().Pods("default").Delete(ctx, victim.Name, metav1.DeleteOptions{GracePeriodSeconds: &now}); err != nil {
		t.Fatal(err)
	}
	await(t, 15*time.Second, "replacement", func() bool {
		for _, p := range pods(t, admin, 2)["kube-node1"] {
			if p.UID != victim.UID {
				return true
			}
		}
		return false
	})
}

func keysOf(t *testing.T, dir string) map[string]string {
	t.Helper()
	got := map[string]string{}
	for _, pattern := range []string{"pki/*", "nodes/*", "*.kubeconfig"} {
		files, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			data, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			got[f] = string(data)
		}
	}
	if len(got) < 10 {
		t.Errorf("only %d files", len(got))
	}
	return got
}
