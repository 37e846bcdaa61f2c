package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"weft/internal/agent/loop"
	"weft/internal/store/kube"
)

// conditionCheck is how often the node's condition is looked at: somebody may have registered the node anew.
const conditionCheck = 5 * time.Minute

// networkUp is the condition that lets the scheduler send pods to the node (flannel says the same with a reason of its own).
var networkUp = corev1.NodeCondition{
	Type: corev1.NodeNetworkUnavailable, Status: corev1.ConditionFalse, Reason: "WeftIsUp", Message: "weft has set up the pod network",
}

// nodeReference is the node as kubectl describe looks for its events.
func nodeReference(name string) corev1.ObjectReference {
	return corev1.ObjectReference{Kind: "Node", Name: name, UID: types.UID(name)}
}

// keepCondition says in the node's status that its network is up, once it is, and writes only when the status says something else.
func (a *agent) keepCondition(ctx context.Context, renewed <-chan struct{}) error {
	select {
	case <-ctx.Done():
		return nil
	case <-a.data.Ready():
	}
	l := loop.Loop{Name: "condition", Every: conditionCheck, Log: a.log, Triggers: []loop.Trigger{loop.On(renewed, loop.ByPlan)}}
	l.Step = func(ctx context.Context, _ loop.Cause) (loop.Work, error) {
		err := setCondition(ctx, a.kube, a.cfg.NodeName, time.Now())
		if errors.Is(err, kube.ErrNotFound) {
			err = fmt.Errorf("node %s is not registered: %w", a.cfg.NodeName, err)
		}
		return loop.Work{}, err
	}
	return l.Run(ctx)
}

// setCondition writes the condition unless the node has it already.
func setCondition(ctx context.Context, api *kube.Store, name string, now time.Time) error {
	n, err := api.GetNode(ctx, name)
	if err != nil {
		return err
	}
	if slices.ContainsFunc(n.Status.Conditions, func(c corev1.NodeCondition) bool {
		return c.Type == networkUp.Type && c.Status == networkUp.Status
	}) {
		return nil
	}
	c := networkUp
	c.LastHeartbeatTime, c.LastTransitionTime = metav1.NewTime(now), metav1.NewTime(now)
	return api.SetNodeCondition(ctx, name, c)
}
