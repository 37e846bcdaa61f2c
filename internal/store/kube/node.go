package kube

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"weft/internal/api"
)

// Heartbeat of a node: its Lease is renewed this often and good for this long (KEP-589).
const (
	LeasePeriod   = 10 * time.Second
	leaseDuration = 40
	leaseSpace    = "kube-node-lease"
)

// RegisterNode creates the node, or gives the one that exists want's labels and annotations, and returns the node as it was before
// that: a new one with want's status. Labels and annotations that want does not name stay.
func (s *Store) RegisterNode(ctx context.Context, want *corev1.Node) (*corev1.Node, error) {
	var have corev1.Node
	err := s.core.Get().Resource("nodes").Name(want.Name).Do(ctx).Into(&have)
	if apierrors.IsNotFound(err) {
		err = s.core.Post().Resource("nodes").Body(want).Do(ctx).Into(&have)
	}
	if err != nil {
		return nil, fmt.Errorf("register node %s: %w", want.Name, s.clear(err))
	}
	if missing(have.Labels, want.Labels) || missing(have.Annotations, want.Annotations) {
		patch := map[string]any{"metadata": map[string]any{"labels": want.Labels, "annotations": want.Annotations}}
		if err := s.patchNode(ctx, want.Name, types.MergePatchType, patch); err != nil {
			return nil, fmt.Errorf("label node %s: %w", want.Name, err)
		}
	}
	return &have, nil
}

func missing(have, want map[string]string) bool {
	for k, v := range want {
		if got, ok := have[k]; !ok || got != v {
			return true
		}
	}
	return false
}

// PatchNodeStatus writes the status of a node. Conditions of types that status does not name stay; addresses are replaced.
func (s *Store) PatchNodeStatus(ctx context.Context, name string, status *corev1.NodeStatus) error {
	body, err := toMap(status)
	if err != nil {
		return fmt.Errorf("write status of node %s: %w", name, err)
	}
	replaceList(body, "addresses")
	if err := s.patchNode(ctx, name, types.StrategicMergePatchType, map[string]any{"status": body}, "status"); err != nil {
		return fmt.Errorf("write status of node %s: %w", name, err)
	}
	return nil
}

// AnnotateNode sets annotations of a node, and removes those whose value is nil. It writes as flannel does, through the status
// subresource.
func (s *Store) AnnotateNode(ctx context.Context, name string, annotations map[string]*string) error {
	patch := map[string]any{"metadata": map[string]any{"annotations": annotations}}
	if err := s.patchNode(ctx, name, types.StrategicMergePatchType, patch, "status"); err != nil {
		return fmt.Errorf("annotate node %s: %w", name, err)
	}
	return nil
}

// GetNode reads a node; errors.Is(err, ErrNotFound) when there is none.
func (s *Store) GetNode(ctx context.Context, name string) (*corev1.Node, error) {
	var n corev1.Node
	if err := s.core.Get().Resource("nodes").Name(name).Do(ctx).Into(&n); err != nil {
		return nil, fmt.Errorf("read node %s: %w", name, s.clear(err))
	}
	return &n, nil
}

func (s *Store) patchNode(ctx context.Context, name string, kind types.PatchType, patch map[string]any, sub ...string) error {
	data, err := json.Marshal(patch)
	if err != nil {
		return fmt.Errorf("encode patch: %w", err)
	}
	return s.clear(s.core.Patch(kind).Resource("nodes").Name(name).SubResource(sub...).Body(data).Do(ctx).Error())
}

// RenewLease says that the node lives, now. It makes the Lease when there is none; errors.Is(err, ErrNotFound) when the node itself
// has been deleted, its Lease with it.
func (s *Store) RenewLease(ctx context.Context, node string, now time.Time) error {
	stamp := metav1.NewMicroTime(now)
	patch, err := json.Marshal(map[string]any{"spec": map[string]any{
		"holderIdentity": node, "leaseDurationSeconds": leaseDuration, "renewTime": stamp,
	}})
	if err != nil {
		return fmt.Errorf("renew lease of node %s: encode: %w", node, err)
	}
	err = s.coordination.Patch(types.MergePatchType).Namespace(leaseSpace).Resource("leases").Name(node).Body(patch).Do(ctx).Error()
	if apierrors.IsNotFound(err) {
		err = s.createLease(ctx, node, stamp)
	}
	if err != nil {
		return fmt.Errorf("renew lease of node %s: %w", node, s.clear(err))
	}
	return nil
}

// createLease makes the node own its lease, so that it goes when the node does.
func (s *Store) createLease(ctx context.Context, node string, now metav1.MicroTime) error {
	seconds := int32(leaseDuration)
	var n corev1.Node
	if err := s.core.Get().Resource("nodes").Name(node).Do(ctx).Into(&n); err != nil {
		return err
	}
	l := &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{
			Name: node, Namespace: leaseSpace,
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: node, UID: n.UID}},
		},
		Spec: coordinationv1.LeaseSpec{HolderIdentity: &node, LeaseDurationSeconds: &seconds, RenewTime: &now},
	}
	return s.coordination.Post().Namespace(leaseSpace).Resource("leases").Body(l).Do(ctx).Error()
}

// toMap is v as the JSON object it encodes to.
func toMap(v any) (map[string]any, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encode: %w", err)
	}
	var out map[string]any
	if err := json.Unmarshal(data, &out); err != nil {
		return nil, fmt.Errorf("encode: %w", err)
	}
	return out, nil
}

// replaceList makes a strategic merge patch replace a list that would be merged by key. For node addresses, whose key is their
// type, merging would drop the second family's InternalIP.
func replaceList(body map[string]any, field string) {
	if list, ok := body[field].([]any); ok {
		body[field] = append(list, map[string]any{"$patch": "replace"})
	}
}

// SetNodeCondition writes one condition of a node's status; the others stay.
func (s *Store) SetNodeCondition(ctx context.Context, name string, c corev1.NodeCondition) error {
	patch := map[string]any{"status": map[string]any{"conditions": []corev1.NodeCondition{c}}}
	if err := s.patchNode(ctx, name, types.StrategicMergePatchType, patch, "status"); err != nil {
		return fmt.Errorf("write condition %s of node %s: %w", c.Type, name, err)
	}
	return nil
}

// Nodes lists the nodes once, by name.
func (s *Store) Nodes(ctx context.Context) ([]api.Node, error) {
	var list corev1.NodeList
	if err := s.core.Get().Resource("nodes").Do(ctx).Into(&list); err != nil {
		return nil, fmt.Errorf("list nodes: %w", s.clear(err))
	}
	out := make([]api.Node, len(list.Items))
	for i := range list.Items {
		out[i] = convertNode(&list.Items[i])
	}
	slices.SortFunc(out, func(a, b api.Node) int { return cmp.Compare(a.Name, b.Name) })
	return out, nil
}
