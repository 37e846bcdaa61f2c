package server

import (
	"context"
	"log/slog"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"
)

// orphanPeriod is how often orphans are looked for; a node gone for two looks in a row stays gone.
const orphanPeriod = 20 * time.Second

// orphans deletes pods nobody will ever report on again: those bound to a node that is gone, and those deleted before
// they had a node. Upstream's podgc does it too, but for one function of its own it links the whole kubelet and cadvisor
// into the program (150 packages).
func (c *control) orphans() (loop, error) {
	pods, nodes := c.informers.Core().V1().Pods(), c.informers.Core().V1().Nodes()
	synced := []cache.InformerSynced{pods.Informer().HasSynced, nodes.Informer().HasSynced}
	return func(ctx context.Context) {
		if !cache.WaitForCacheSync(ctx.Done(), synced...) {
			return
		}
		tick := time.NewTicker(orphanPeriod)
		defer tick.Stop()
		suspects := map[types.UID]bool{}
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			list, err := pods.Lister().List(labels.Everything())
			if err != nil {
				slog.Error("list pods", "err", err)
				continue
			}
			exists := func(node string) bool {
				_, err := nodes.Lister().Get(node)
				return !apierrors.IsNotFound(err)
			}
			gone, next := orphaned(list, suspects, exists)
			suspects = next
			for _, pod := range gone {
				c.deleteOrphan(ctx, pod)
			}
		}
	}, nil
}

// orphaned returns the pods to delete, and those whose node was not there this time: they go the next time.
func orphaned(pods []*v1.Pod, suspects map[types.UID]bool, exists func(node string) bool) (gone []*v1.Pod, next map[types.UID]bool) {
	next = map[types.UID]bool{}
	for _, pod := range pods {
		switch node := pod.Spec.NodeName; {
		case node == "" && pod.DeletionTimestamp != nil:
			gone = append(gone, pod)
		case node == "" || exists(node):
		case suspects[pod.UID]:
			gone = append(gone, pod)
		default:
			next[pod.UID] = true
		}
	}
	return gone, next
}

func (c *control) deleteOrphan(ctx context.Context, pod *v1.Pod) {
	now := int64(0)
	err := c.client.CoreV1().Pods(pod.Namespace).Delete(ctx, pod.Name, metav1.DeleteOptions{
		GracePeriodSeconds: &now,
		Preconditions:      &metav1.Preconditions{UID: &pod.UID},
	})
	switch {
	case err == nil:
		slog.Info("deleted orphaned pod", "pod", pod.Namespace+"/"+pod.Name, "node", pod.Spec.NodeName)
	case !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) && ctx.Err() == nil:
		slog.Error("delete orphaned pod", "pod", pod.Namespace+"/"+pod.Name, "err", err)
	}
}
