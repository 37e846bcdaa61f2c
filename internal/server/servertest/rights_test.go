package servertest

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	authv1 "k8s.io/api/authentication/v1"
	v1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/yaml"

	"weft/internal/store/kube"
)

// documentedRole reads the ClusterRole of docs/kubernetes.md.
func documentedRole(t *testing.T) *rbacv1.ClusterRole {
	t.Helper()
	text, err := os.ReadFile("../../../docs/kubernetes.md")
	if err != nil {
		t.Fatal(err)
	}
	_, after, ok := strings.Cut(string(text), "<!-- rights -->\n```\n")
	manifest, _, ok2 := strings.Cut(after, "```")
	var role rbacv1.ClusterRole
	if err := yaml.UnmarshalStrict([]byte(manifest), &role); !ok || !ok2 || err != nil || len(role.Rules) == 0 {
		t.Fatalf("no ClusterRole in docs/kubernetes.md: %v", err)
	}
	return &role
}

// TestDocumentedRights runs the store code of an agent with --kube-subnet-mgr as a ServiceAccount that has the documented rights and
// nothing else.
func TestDocumentedRights(t *testing.T) {
	s := newServer(t)
	s.start()
	ctx, admin := within(t), s.client("admin.kubeconfig")
	role := documentedRole(t)
	must := func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(admin.RbacV1().ClusterRoles().Create(ctx, role, metav1.CreateOptions{}))
	must(admin.RbacV1().ClusterRoleBindings().Create(ctx, &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "weft"}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role.Name},
		Subjects: []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: "default", Name: "weft"}},
	}, metav1.CreateOptions{}))
	must(admin.CoreV1().ServiceAccounts("default").Create(ctx, &v1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "weft"}}, metav1.CreateOptions{}))
	must(admin.CoreV1().Nodes().Create(ctx, &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}, Spec: v1.NodeSpec{PodCIDR: "172.16.1.0/24"}},
		metav1.CreateOptions{}))
	token, err := admin.CoreV1().ServiceAccounts("default").CreateToken(ctx, "weft", &authv1.TokenRequest{}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	path, client := asToken(t, s, token.Status.Token)
	k, err := kube.Open(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	w := k.Watch(ctx, kube.WatchOptions{PodsOf: "n1"})
	await(t, 20*time.Second, "everything listed", func() bool {
		select {
		case <-w.Synced():
			return true
		default:
			return false
		}
	})
	value := "true"
	if err := k.AnnotateNode(ctx, "n1", map[string]*string{"flannel.alpha.coreos.com/kube-subnet-manager": &value}); err != nil {
		t.Error(err)
	}
	if err := k.SetNodeCondition(ctx, "n1", v1.NodeCondition{Type: v1.NodeNetworkUnavailable, Status: v1.ConditionFalse, Reason: "WeftIsUp"}); err != nil {
		t.Error(err)
	}
	k.Events(ctx, "weft", "n1").Event(v1.ObjectReference{Kind: "Node", Name: "n1", UID: "n1"}, v1.EventTypeWarning, "LeaseRefused", "a test")
	await(t, 20*time.Second, "what was written", func() bool {
		nodes, err := k.Nodes(ctx)
		events, err2 := admin.CoreV1().Events("default").List(ctx, metav1.ListOptions{FieldSelector: "reason=LeaseRefused"})
		return err == nil && err2 == nil && len(nodes) == 1 && nodes[0].Annotations["flannel.alpha.coreos.com/kube-subnet-manager"] == "true" &&
			len(nodes[0].PodCIDRs) == 1 && len(events.Items) == 1
	})
	n, err := k.GetNode(ctx, "n1")
	if err != nil || len(n.Status.Conditions) == 0 {
		t.Errorf("conditions %+v, %v", n, err)
	}
	if err := client.CoreV1().Nodes().Delete(ctx, "n1", metav1.DeleteOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("delete of the node: %v, want it forbidden", err)
	}
	if _, err := client.CoreV1().Secrets("default").List(ctx, metav1.ListOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("list of secrets: %v, want it forbidden", err)
	}
}

// asToken writes the admin's kubeconfig with another identity.
func asToken(t *testing.T, s *server, token string) (path string, client kubernetes.Interface) {
	t.Helper()
	config, err := clientcmd.LoadFromFile(filepath.Join(s.dir, "admin.kubeconfig"))
	if err != nil {
		t.Fatal(err)
	}
	for name := range config.AuthInfos {
		config.AuthInfos[name].ClientCertificate, config.AuthInfos[name].ClientKey = "", ""
		config.AuthInfos[name].ClientCertificateData, config.AuthInfos[name].ClientKeyData = nil, nil
		config.AuthInfos[name].Token = token
	}
	path = filepath.Join(t.TempDir(), "kubeconfig")
	if err := clientcmd.WriteToFile(*config, path); err != nil {
		t.Fatal(fmt.Errorf("write kubeconfig: %w", err))
	}
	cfg, err := clientcmd.BuildConfigFromFlags("", path)
	if err != nil {
		t.Fatal(err)
	}
	if client, err = kubernetes.NewForConfig(cfg); err != nil {
		t.Fatal(err)
	}
	return path, client
}
