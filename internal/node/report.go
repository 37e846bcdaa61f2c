package node

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"

	"weft/internal/node/pod"
	"weft/internal/store/kube"
)

// Times of a status that is being written.
const (
	writeTimeout  = 10 * time.Second
	writeRetry    = time.Second
	writeRetryMax = 10 * time.Second
	writeLag      = 5 * time.Second // the watch shows a written status after this long at the latest
)

// reporter writes one pod's status: always the newest, again and again until the API has it. With final it then removes the object.
type reporter struct {
	worker *worker
	wake   chan struct{}

	mu      sync.Mutex
	want    *corev1.PodStatus
	final   bool
	acked   []byte // the status the API took last
	ackedAt time.Time
}

func newReporter(w *worker) *reporter { return &reporter{worker: w, wake: make(chan struct{}, 1)} }

// report hands the pod's status to the reporter when it is not what the API has.
func (w *worker) report(final bool) {
	before := w.last
	if before == nil {
		before = &w.view.Pod.Status
	}
	status := pod.Status(&w.view, before, w.idPrefix())
	w.last = status
	w.reporting.set(status, final, &w.view.Pod.Status)
}

func (r *reporter) set(status *corev1.PodStatus, final bool, have *corev1.PodStatus) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !final && (same(have, status) || time.Since(r.ackedAt) < writeLag && bytes.Equal(r.acked, encode(status))) {
		if r.want != nil && !bytes.Equal(encode(r.want), encode(status)) {
			r.want = status // an older one was still to be written
		}
		return
	}
	if r.final && r.want == nil && time.Since(r.ackedAt) < writeLag { // all is written, the watch will tell
		return
	}
	r.want, r.final = status, r.final || final
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

func (r *reporter) run(ctx context.Context) {
	retry := writeRetry
	var again <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.wake:
		case <-again:
		}
		again = nil
		if err := r.write(ctx); err != nil && ctx.Err() == nil {
			r.worker.node.log.Debug("pod status not written, will be tried again", "uid", r.worker.uid, "err", err)
			again = time.After(retry)
			retry = min(2*retry, writeRetryMax)
			continue
		}
		retry = writeRetry
	}
}

func (r *reporter) write(ctx context.Context) error {
	r.mu.Lock()
	want, final := r.want, r.final
	r.mu.Unlock()
	if want == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	w, api := r.worker, r.worker.node.config.API
	w.mu.Lock()
	p := w.latest
	w.mu.Unlock()
	err := api.PatchPodStatus(ctx, p.Namespace, p.Name, p.UID, want)
	if err != nil && !errors.Is(err, kube.ErrNotFound) {
		return err
	}
	r.mu.Lock()
	r.acked, r.ackedAt = encode(want), time.Now()
	if r.want == want {
		r.want = nil
	}
	r.mu.Unlock()
	if !final {
		return nil
	}
	if err := api.DeletePod(ctx, p.Namespace, p.Name, p.UID); err != nil {
		r.mu.Lock()
		if r.want == nil {
			r.want = want
		}
		r.mu.Unlock()
		return err
	}
	return nil
}

// same says whether writing want would change nothing of what the API has.
func same(have, want *corev1.PodStatus) bool {
	merged := have.DeepCopy()
	next := want.DeepCopy()
	for _, c := range have.Conditions {
		if !hasCondition(next.Conditions, c.Type) {
			next.Conditions = append(next.Conditions, c)
		}
	}
	sortConditions(merged.Conditions)
	sortConditions(next.Conditions)
	next.QOSClass, next.Resize, next.ResourceClaimStatuses = merged.QOSClass, merged.Resize, merged.ResourceClaimStatuses
	next.EphemeralContainerStatuses, next.NominatedNodeName = merged.EphemeralContainerStatuses, merged.NominatedNodeName
	return bytes.Equal(encode(merged), encode(next))
}

// encode is the status as the API would say it: with times in seconds.
func encode(s *corev1.PodStatus) []byte {
	data, err := json.Marshal(s)
	if err != nil {
		return nil
	}
	return data
}
