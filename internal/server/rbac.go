package server

import (
	"context"
	"fmt"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// nodeBinding lets every node read what a service proxy reads: all nodes, services and endpoint slices. What a node may
// write stays with the Node authorizer: its own Node, its Lease, its pods' status and events.
var nodeBinding = &rbacv1.ClusterRoleBinding{
	ObjectMeta: metav1.ObjectMeta{
		Name:        "weft:node-proxier",
		Annotations: map[string]string{"weft/why": "the node agent is overlay and service proxy in one, with its node's identity"},
	},
	RoleRef:  rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "system:node-proxier"},
	Subjects: []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: "Group", Name: "system:nodes"}},
}

// settle makes what a fresh cluster must have before its users come, and waits for it: the nodes' rights, and the
// default service account, without which no pod is admitted.
func settle(ctx context.Context, client kubernetes.Interface) error {
	_, err := client.RbacV1().ClusterRoleBindings().Create(ctx, nodeBinding, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("bind node role: %w", err)
	}
	return poll(ctx, 20*time.Millisecond, func() bool {
		_, err := client.CoreV1().ServiceAccounts("default").Get(ctx, "default", metav1.GetOptions{})
		return err == nil
	})
}

// poll asks done every period until it says yes or ctx ends.
func poll(ctx context.Context, period time.Duration, done func() bool) error {
	tick := time.NewTicker(period)
	defer tick.Stop()
	for !done() {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
	return nil
}
