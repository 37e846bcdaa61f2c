package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// manifest is the workload of the stories: nginx on both nodes behind a service, and a pod to ask it from. Without the probe a pod would
// be Ready before nginx listens.
const manifest = `apiVersion: v1
kind: ReplicationController
metadata: {name: web}
spec:
  replicas: 2
  selector: {app: web}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - name: nginx
        image: nginx:1.0
        ports: [{containerPort: 80}]
        readinessProbe: {httpGet: {port: 80}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports: [{port: 8080, targetPort: 80}]
---
apiVersion: v1
kind: Pod
metadata: {name: client, labels: {app: client}}
spec:
  nodeSelector: {kubernetes.io/hostname: kube-node1}
  containers:
  - {name: sshd, image: sshd}
`

// workload is where the manifest's objects are now.
type workload struct {
	vip    string
	web    map[string]object // by node
	client object            // on node1
}

func (w workload) url() string { return "http://" + w.vip + ":8080/" }

// load creates the workload.
func (c *cluster) load(t *testing.T) {
	t.Helper()
	if err := c.WriteFile(t.Context(), master, "/tmp/workload.yml", []byte(manifest)); err != nil {
		t.Fatal(err)
	}
	c.kubectl(t, "create", "-f", "/tmp/workload.yml")
}

// workload waits until the workload is Ready, spread over the nodes, and served on all of them.
func (c *cluster) workload(t *testing.T) workload {
	t.Helper()
	var w workload
	eventually(t, "the workload", 40*time.Second, func() (err error) {
		w, err = c.look(t.Context())
		return err
	})
	for _, n := range nodes {
		eventually(t, "the service on "+n, 20*time.Second, func() error {
			out, err := c.rules(t.Context(), n)
			if err != nil {
				return err
			}
			for _, p := range w.web {
				if !holds(out, p.Status.PodIP) {
					return fmt.Errorf("%s is not in\n%s", p.Status.PodIP, out)
				}
			}
			_, err = c.get(t.Context(), n, w.url())
			return err
		})
	}
	return w
}

func (c *cluster) look(ctx context.Context) (workload, error) {
	w := workload{web: map[string]object{}}
	all, err := c.objects(ctx, "services,pods")
	if err != nil {
		return w, err
	}
	ready := 0
	for _, o := range all {
		switch {
		case o.Kind == "Service" && o.Metadata.Name == "web":
			w.vip = o.Spec.ClusterIP
		case o.Kind != "Pod" || !o.ready():
		case o.Metadata.Name == "client":
			w.client = o
		case strings.HasPrefix(o.Metadata.Name, "web-"):
			w.web[o.Spec.NodeName] = o
			ready++
		}
	}
	if w.vip == "" || w.client.Status.PodIP == "" || len(w.web) != 2 || ready != 2 {
		return w, fmt.Errorf("not yet: service %q, client %q, %d of 2 web pods on %d of 2 nodes", w.vip, w.client.Status.PodIP, ready, len(w.web))
	}
	return w, nil
}

// get asks a URL from a host; the answer is nginx's.
func (c *cluster) get(ctx context.Context, host, url string) (string, error) {
	return c.sh(ctx, host, "curl -sS -f -m 5 "+url)
}

// inPod is a command in the network of a pod. It does not ask the pod's agent, as kubectl exec does.
func (c *cluster) inPod(t *testing.T, pod object, command string) string {
	t.Helper()
	text, err := c.ReadFile(t.Context(), pod.Spec.NodeName, "/run/weft/attachments.json")
	if err != nil {
		t.Fatal(err)
	}
	var attached struct {
		Pods map[string]struct{ Netns string }
	}
	if err := json.Unmarshal(text, &attached); err != nil {
		t.Fatal(err)
	}
	netns := attached.Pods[pod.Metadata.UID].Netns
	if netns == "" {
		t.Fatalf("%s has no network: %s", pod, text)
	}
	return "nsenter --net=" + netns + " " + command
}

// rules is what leads a node's service connections to their endpoints: the table in mode nftables, else the relay's listeners.
func (c *cluster) rules(ctx context.Context, node string) (string, error) {
	if c.Topology().Cluster.ProxyMode == nftables {
		return c.sh(ctx, node, "nft list table inet weft")
	}
	return c.sh(ctx, node, "weft state | grep ^listener")
}

// holds says whether an address stands in a text, not as the beginning of another.
func holds(text, addr string) bool {
	words := strings.FieldsFunc(text, func(r rune) bool { return r != '.' && (r < '0' || r > '9') })
	return slices.Contains(words, addr)
}
