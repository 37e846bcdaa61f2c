package node

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"weft/internal/node/pod"
	"weft/internal/node/probe"
	"weft/internal/runtime"
	"weft/internal/store/kube"
)

// Reasons of a container that waits, as kubectl shows them.
const (
	reasonPull        = "ErrImagePull"
	reasonPullBackOff = "ImagePullBackOff"
	reasonConfig      = "CreateContainerConfigError"
	reasonRun         = "RunContainerError"
	reasonCreating    = "ContainerCreating"
)

// start starts a container, or remembers and tells why it could not.
func (w *worker) start(ctx context.Context, c *corev1.Container) {
	r := w.view.Records[c.Name]
	if why := pod.Unsupported(w.view.Pod, c); why != "" {
		w.event(corev1.EventTypeWarning, "FailedMount", why, "")
		r.Fail(reasonCreating, "", time.Now())
		return
	}
	ctx, cancel := context.WithTimeout(ctx, actionTimeout)
	defer cancel()
	spec, err := pod.Container(w.values(ctx), c, r.Attempt())
	if err != nil {
		w.event(corev1.EventTypeWarning, "Failed", "Error: "+err.Error(), field(w.view.Pod, c))
		r.Fail(reasonConfig, err.Error(), time.Now())
		return
	}
	st, err := w.node.config.Runtime.StartContainer(ctx, w.uid, spec)
	w.node.watch.invalidate()
	switch {
	case errors.Is(err, runtime.ErrImage):
		w.event(corev1.EventTypeWarning, "Failed", fmt.Sprintf("Failed to pull image %q: %v", c.Image, err), field(w.view.Pod, c))
		w.event(corev1.EventTypeWarning, "Failed", "Error: "+reasonPull, field(w.view.Pod, c))
		r.Fail(reasonPull, err.Error(), time.Now())
		return
	case err != nil:
		w.event(corev1.EventTypeWarning, "Failed", "Error: "+err.Error(), field(w.view.Pod, c))
		r.Fail(reasonRun, err.Error(), time.Now())
		return
	}
	r.Observe(&st, w.idPrefix())
	w.event(corev1.EventTypeNormal, "Pulled", fmt.Sprintf("Container image %q already present on machine", c.Image), field(w.view.Pod, c))
	w.event(corev1.EventTypeNormal, "Created", "Created container: "+c.Name, field(w.view.Pod, c))
	w.event(corev1.EventTypeNormal, "Started", "Started container "+c.Name, field(w.view.Pod, c))
	w.postStart(ctx, c)
}

// postStart runs the container's hook beside everything else; a container whose hook fails is stopped.
func (w *worker) postStart(ctx context.Context, c *corev1.Container) {
	if c.Lifecycle == nil || c.Lifecycle.PostStart == nil {
		return
	}
	target, grace, ref := w.target(c), w.grace(w.view.Pod), field(w.view.Pod, c)
	ctx = context.WithoutCancel(ctx)
	go func() {
		ctx, cancel := context.WithTimeout(ctx, actionTimeout)
		defer cancel()
		if err := probe.Hook(ctx, c.Lifecycle.PostStart, target); err != nil {
			w.event(corev1.EventTypeWarning, "FailedPostStartHook", "PostStartHook failed: "+err.Error(), ref)
			w.kill(ctx, c, grace, "FailedPostStartHook")
		}
	}()
}

// values is what the container's environment may refer to.
func (w *worker) values(ctx context.Context) *pod.Values {
	c, p := w.node.config, w.view.Pod
	return &pod.Values{
		Pod: p, IPs: w.podIPs(), HostIPs: w.view.HostIPs, Services: c.Services(),
		ConfigMap: func(name string) (map[string]string, error) {
			m, err := c.API.ConfigMap(ctx, p.Namespace, name)
			if err != nil {
				return nil, missing(err)
			}
			data := maps.Clone(m.Data)
			for k, v := range m.BinaryData {
				data[k] = string(v)
			}
			return data, nil
		},
		Secret: func(name string) (map[string][]byte, error) {
			s, err := c.API.Secret(ctx, p.Namespace, name)
			if err != nil {
				return nil, missing(err)
			}
			return s.Data, nil
		},
	}
}

func missing(err error) error {
	if errors.Is(err, kube.ErrNotFound) {
		return fmt.Errorf("%w: %w", pod.ErrMissing, err)
	}
	return err
}

// tellWaits records an event when a container's back-off begins, and says of an image that it is waited for.
func (w *worker) tellWaits(plan *pod.Plan) {
	for _, c := range plan.Waiting {
		r := w.view.Records[c.Name]
		if w.waits[c.Name].Equal(r.NotBefore) {
			continue
		}
		w.waits[c.Name] = r.NotBefore
		switch {
		case r.Waiting == nil:
			w.event(corev1.EventTypeWarning, "BackOff", fmt.Sprintf("Back-off restarting failed container %s in pod %s_%s(%s)",
				c.Name, w.view.Pod.Name, w.view.Pod.Namespace, w.uid), field(w.view.Pod, c))
		case r.Waiting.Reason == reasonPull:
			text := fmt.Sprintf("Back-off pulling image %q", c.Image)
			w.event(corev1.EventTypeNormal, "BackOff", text, field(w.view.Pod, c))
			w.event(corev1.EventTypeWarning, "Failed", "Error: "+reasonPullBackOff, field(w.view.Pod, c))
			r.Waiting.Reason, r.Waiting.Message = reasonPullBackOff, text+": "+r.Waiting.Message
		}
	}
}

// event tells of the pod, or of one of its containers when fieldPath says which.
func (w *worker) event(kind, reason, message, fieldPath string) {
	w.mu.Lock()
	p := w.latest
	w.mu.Unlock()
	w.node.config.Events.Event(corev1.ObjectReference{
		Kind: "Pod", APIVersion: "v1", Namespace: p.Namespace, Name: p.Name, UID: p.UID, ResourceVersion: p.ResourceVersion, FieldPath: fieldPath,
	}, kind, reason, message)
}

// field is the path of a container in the pod's object.
func field(p *corev1.Pod, c *corev1.Container) string {
	for i := range p.Spec.InitContainers {
		if p.Spec.InitContainers[i].Name == c.Name {
			return "spec.initContainers{" + c.Name + "}"
		}
	}
	return "spec.containers{" + c.Name + "}"
}

// idPrefix is the runtime's name as a URL's scheme: what comes before the version.
func idPrefix(runtimeVersion string) string {
	scheme, _, _ := strings.Cut(runtimeVersion, "://")
	return scheme + "://"
}
