package node

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"weft/internal/node/facts"
	"weft/internal/store/kube"
)

// The node's status is looked at every statusPeriod, and written when it changed or statusMax after it was written last.
const (
	statusPeriod = time.Second
	statusMax    = 5 * time.Minute
	checkPeriod  = 30 * time.Second // does the Node still exist
	leasePeriod  = 10 * time.Second
	retryPeriod  = time.Second // of a write that failed
)

// self is what the node knows of itself at one moment.
type self struct {
	host      facts.Host
	pressure  facts.Pressure
	addresses []netip.Addr
	notReady  error // of the network
}

// heartbeat registers the node, renews its lease and keeps its status until ctx ends. An API that does not answer is tried again.
func heartbeat(ctx context.Context, c *Config) error {
	dir := c.StateDir
	if dir == "" {
		dir = "/"
	}
	host, err := facts.Read("/", dir)
	if err != nil {
		return fmt.Errorf("read host: %w", err)
	}
	b := &beat{config: c, dir: dir, host: host}
	tick := time.NewTicker(statusPeriod)
	defer tick.Stop()
	for {
		b.step(ctx, time.Now())
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// beat is the heartbeat's memory.
type beat struct {
	config     *Config
	dir        string
	host       facts.Host
	registered bool
	uid        types.UID // of the Node
	checkedAt  time.Time
	conditions []corev1.NodeCondition // as of the last status, for their transition times
	written    *corev1.NodeStatus     // without heartbeat times
	writtenAt  time.Time
	leasedAt   time.Time
	failedAt   time.Time
	lastErr    string
}

func (b *beat) step(ctx context.Context, now time.Time) {
	if now.Sub(b.failedAt) < retryPeriod {
		return
	}
	err := b.try(ctx, now)
	if ctx.Err() != nil {
		return
	}
	switch {
	case err != nil:
		b.failedAt = now
		b.registered = b.registered && !errors.Is(err, kube.ErrNotFound) // someone deleted the Node: it is made again
		if err.Error() != b.lastErr {
			b.config.Log.Warn("node status not written, will be tried again", "err", err)
		}
		b.lastErr = err.Error()
	case b.lastErr != "":
		b.lastErr = ""
		b.config.Log.Info("node status written again")
	}
}

func (b *beat) try(ctx context.Context, now time.Time) error {
	pressure, err := facts.ReadPressure("/", b.dir)
	if err != nil {
		return fmt.Errorf("read host: %w", err)
	}
	s := self{host: b.host, pressure: pressure, addresses: b.config.Addresses(), notReady: b.config.NetworkReady()}
	ctx, cancel := context.WithTimeout(ctx, leasePeriod)
	defer cancel()
	if now.Sub(b.leasedAt) >= leasePeriod && b.registered {
		if err := b.config.API.RenewLease(ctx, b.config.Name, now); err != nil {
			return fmt.Errorf("heartbeat: %w", err)
		}
		b.leasedAt = now
	}
	status := nodeStatus(b.config, s)
	if err := b.register(ctx, status, now); err != nil {
		return err
	}
	if reflect.DeepEqual(status, b.written) && now.Sub(b.writtenAt) < statusMax {
		return nil
	}
	stamped := *status
	stamped.Conditions = stamp(status.Conditions, b.conditions, now)
	if err := b.config.API.PatchNodeStatus(ctx, b.config.Name, &stamped); err != nil {
		return err
	}
	b.conditions, b.written, b.writtenAt = stamped.Conditions, status, now
	return nil
}

// register makes sure that the Node exists, also when someone deleted it. A node that was here before keeps the times of its
// conditions.
func (b *beat) register(ctx context.Context, status *corev1.NodeStatus, now time.Time) error {
	if b.registered && now.Sub(b.checkedAt) < checkPeriod {
		return nil
	}
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: b.config.Name, Labels: nodeLabels(b.config, b.host)}, Status: *status}
	node.Status.Conditions = stamp(status.Conditions, nil, now)
	have, err := b.config.API.RegisterNode(ctx, node)
	if err != nil {
		return err
	}
	b.checkedAt = now
	if b.registered && b.uid == have.UID {
		return nil
	}
	b.registered, b.uid, b.written, b.conditions = true, have.UID, nil, have.Status.Conditions
	b.config.Log.Info("node registered", "name", b.config.Name)
	ref := corev1.ObjectReference{Kind: "Node", APIVersion: "v1", Name: b.config.Name, UID: have.UID}
	b.config.Events.Event(ref, corev1.EventTypeNormal, "Starting", "Starting weft agent.")
	return nil
}

func nodeLabels(c *Config, h facts.Host) map[string]string {
	labels := map[string]string{}
	maps.Copy(labels, c.Labels)
	labels[corev1.LabelHostname], labels[corev1.LabelOSStable], labels[corev1.LabelArchStable] = c.Name, h.OS, h.Arch
	return labels
}

// nodeStatus is the Node's status without times, so that equal states are equal.
func nodeStatus(c *Config, s self) *corev1.NodeStatus {
	st := &corev1.NodeStatus{
		Capacity: corev1.ResourceList{
			corev1.ResourceCPU:              *resource.NewQuantity(int64(s.host.CPUs), resource.DecimalSI),
			corev1.ResourceMemory:           *resource.NewQuantity(s.host.MemoryBytes, resource.BinarySI),
			corev1.ResourceEphemeralStorage: *resource.NewQuantity(s.host.DiskBytes, resource.BinarySI),
			corev1.ResourcePods:             *resource.NewQuantity(int64(c.MaxPods), resource.DecimalSI),
		},
		NodeInfo: corev1.NodeSystemInfo{
			MachineID: s.host.MachineID, SystemUUID: s.host.SystemUUID, BootID: s.host.BootID, KernelVersion: s.host.Kernel,
			OSImage: s.host.OSImage, ContainerRuntimeVersion: c.RuntimeVersion, KubeletVersion: kubeletVersion(c.Version),
			OperatingSystem: s.host.OS, Architecture: s.host.Arch,
		},
		Conditions: nodeConditions(s),
	}
	st.Allocatable = st.Capacity.DeepCopy()
	for _, a := range s.addresses {
		st.Addresses = append(st.Addresses, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: a.String()})
	}
	st.Addresses = append(st.Addresses, corev1.NodeAddress{Type: corev1.NodeHostName, Address: c.Name})
	st.DaemonEndpoints.KubeletEndpoint.Port = int32(c.Listen.Port())
	return st
}

// kubeletVersion is what kubectl get nodes shows: the Kubernetes version whose node behaviour this is, and the product's.
func kubeletVersion(version string) string { return "v1.36.3+weft-" + version }

func nodeConditions(s self) []corev1.NodeCondition {
	cond := func(t corev1.NodeConditionType, bad bool, badReason, badText, goodReason, goodText string) corev1.NodeCondition {
		if bad {
			return corev1.NodeCondition{Type: t, Status: corev1.ConditionTrue, Reason: badReason, Message: badText}
		}
		return corev1.NodeCondition{Type: t, Status: corev1.ConditionFalse, Reason: goodReason, Message: goodText}
	}
	why := ""
	if s.notReady != nil {
		why = s.notReady.Error()
	}
	ready := corev1.NodeCondition{Type: corev1.NodeReady, Status: corev1.ConditionTrue, Reason: "KubeletReady", Message: "weft agent is ready"}
	if s.notReady != nil {
		ready.Status, ready.Reason, ready.Message = corev1.ConditionFalse, "KubeletNotReady", "pod network is not ready: "+why
	}
	return []corev1.NodeCondition{
		cond(corev1.NodeNetworkUnavailable, s.notReady != nil, "WeftIsDown", why, "WeftIsUp", "weft has set up the pod network"),
		cond(corev1.NodeMemoryPressure, s.pressure.Memory, "KubeletHasInsufficientMemory", "less than 100 MiB of memory available",
			"KubeletHasSufficientMemory", "enough memory available"),
		cond(corev1.NodeDiskPressure, s.pressure.Disk, "KubeletHasDiskPressure", "less than 10 % of the disk free",
			"KubeletHasNoDiskPressure", "enough disk free"),
		cond(corev1.NodePIDPressure, s.pressure.PIDs, "KubeletHasInsufficientPID", "more than 90 % of the process IDs taken",
			"KubeletHasSufficientPID", "enough process IDs free"),
		ready,
	}
}

// stamp gives conditions their times: a transition only where the status is another than before.
func stamp(now, before []corev1.NodeCondition, at time.Time) []corev1.NodeCondition {
	out := make([]corev1.NodeCondition, 0, len(now))
	for _, c := range now {
		c.LastHeartbeatTime, c.LastTransitionTime = metav1.NewTime(at), metav1.NewTime(at)
		for _, b := range before {
			if b.Type == c.Type && b.Status == c.Status {
				c.LastTransitionTime = b.LastTransitionTime
			}
		}
		out = append(out, c)
	}
	return out
}
