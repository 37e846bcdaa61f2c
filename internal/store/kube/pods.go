package kube

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"

	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
)

// PodWatch keeps the pods bound to one node current, as whole API objects.
type PodWatch struct {
	mu      sync.Mutex
	table   table[*corev1.Pod, *corev1.Pod]
	listed  bool
	changed signal
}

// WatchPods starts to follow the pods bound to node until ctx ends.
func (s *Store) WatchPods(ctx context.Context, node string) *PodWatch {
	w := &PodWatch{changed: newSignal()}
	w.table = table[*corev1.Pod, *corev1.Pod]{
		mu: &w.mu, rows: map[string]*corev1.Pod{},
		convert: func(p *corev1.Pod) *corev1.Pod {
			p.ManagedFields = nil
			return p
		},
		changed: func(string, *corev1.Pod, *corev1.Pod, bool) { w.changed.poke() },
		listed: func() {
			w.listed = true
			w.changed.poke()
		},
	}
	follow(ctx, s, s.core, "pods", fields.OneTermEqualSelector("spec.nodeName", node), &corev1.PodList{}, &corev1.Pod{}, &w.table)
	return w
}

// Changed receives after a pod came, changed or went; changes that nobody took yet are one.
func (w *PodWatch) Changed() <-chan struct{} { return w.changed }

// Pods returns the node's pods, sorted by namespace and name, and whether they were ever listed: before that, a pod that is not
// among them may well exist. The pods are shared: do not change them.
func (w *PodWatch) Pods() (pods []*corev1.Pod, listed bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.table.sorted(), w.listed
}

// PatchPodStatus writes a pod's status, if the pod still is the one with uid. Conditions of types that status does not name stay.
// errors.Is(err, ErrNotFound) when the pod is gone.
func (s *Store) PatchPodStatus(ctx context.Context, namespace, name string, uid types.UID, status *corev1.PodStatus) error {
	data, err := podPatch(uid, status)
	if err != nil {
		return fmt.Errorf("write status of pod %s/%s: %w", namespace, name, err)
	}
	err = s.core.Patch(types.StrategicMergePatchType).Namespace(namespace).Resource("pods").Name(name).SubResource("status").
		Body(data).Do(ctx).Error()
	if apierrors.IsConflict(err) { // another pod of that name
		return fmt.Errorf("write status of pod %s/%s: %w: %w", namespace, name, ErrNotFound, err)
	}
	if err != nil {
		return fmt.Errorf("write status of pod %s/%s: %w", namespace, name, s.clear(err))
	}
	return nil
}

// podPatch replaces what belongs to the node: lists as a whole, and texts that are empty now.
func podPatch(uid types.UID, status *corev1.PodStatus) ([]byte, error) {
	body, err := toMap(status)
	if err != nil {
		return nil, err
	}
	for _, list := range []string{"podIPs", "hostIPs"} {
		replaceList(body, list)
	}
	for _, field := range []string{"reason", "message", "podIP", "hostIP", "podIPs", "hostIPs", "initContainerStatuses", "containerStatuses"} {
		if _, set := body[field]; !set {
			body[field] = nil
		}
	}
	delete(body, "qosClass") // immutable, the API server's
	data, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": uid}, "status": body})
	if err != nil {
		return nil, fmt.Errorf("encode patch: %w", err)
	}
	return data, nil
}

// DeletePod removes the object of a pod that has ended, if it still is the one with uid. That it is gone already is no error.
func (s *Store) DeletePod(ctx context.Context, namespace, name string, uid types.UID) error {
	now := int64(0)
	err := s.core.Delete().Namespace(namespace).Resource("pods").Name(name).
		Body(&metav1.DeleteOptions{GracePeriodSeconds: &now, Preconditions: &metav1.Preconditions{UID: &uid}}).Do(ctx).Error()
	if err == nil || apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil
	}
	return fmt.Errorf("delete pod %s/%s: %w", namespace, name, s.clear(err))
}

// ConfigMap reads a ConfigMap; errors.Is(err, ErrNotFound) when there is none.
func (s *Store) ConfigMap(ctx context.Context, namespace, name string) (*corev1.ConfigMap, error) {
	var c corev1.ConfigMap
	if err := s.core.Get().Namespace(namespace).Resource("configmaps").Name(name).Do(ctx).Into(&c); err != nil {
		return nil, fmt.Errorf("read configmap %s/%s: %w", namespace, name, s.clear(err))
	}
	return &c, nil
}

// Secret reads a Secret; errors.Is(err, ErrNotFound) when there is none.
func (s *Store) Secret(ctx context.Context, namespace, name string) (*corev1.Secret, error) {
	var c corev1.Secret
	if err := s.core.Get().Namespace(namespace).Resource("secrets").Name(name).Do(ctx).Into(&c); err != nil {
		return nil, fmt.Errorf("read secret %s/%s: %w", namespace, name, s.clear(err))
	}
	return &c, nil
}

// Allowed asks the API server whether user may do verb on nodes/<sub> of the named node, as a kubelet does before it lets someone
// into a pod (SubjectAccessReview).
func (s *Store) Allowed(ctx context.Context, user string, groups []string, verb, node, sub string) (bool, error) {
	review := &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
		User: user, Groups: groups,
		ResourceAttributes: &authorizationv1.ResourceAttributes{Verb: verb, Version: "v1", Resource: "nodes", Subresource: sub, Name: node},
	}}
	var answer authorizationv1.SubjectAccessReview
	if err := s.authorization.Post().Resource("subjectaccessreviews").Body(review).Do(ctx).Into(&answer); err != nil {
		return false, fmt.Errorf("ask whether %s may %s nodes/%s: %w", user, verb, sub, s.clear(err))
	}
	return answer.Status.Allowed, nil
}
