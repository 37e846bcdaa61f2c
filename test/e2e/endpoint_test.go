package e2e

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"weft/test/labtest"
)

// TestPodDeleted deletes a pod: its address leaves the service's rules on both nodes within a second, and another takes its place.
func TestPodDeleted(t *testing.T) {
	for _, mode := range []string{nftables, userspace} {
		t.Run(mode, func(t *testing.T) {
			c, w := borrow(t, mode)
			victim := w.web[node1]
			var gone [2]time.Time
			var errs [2]error
			var watching sync.WaitGroup
			still, began := labtest.NewStill(t), time.Now()
			for i, n := range nodes {
				watching.Go(func() {
					_, errs[i] = within(t.Context(), 20*time.Second, func() error {
						asked := time.Now()
						out, err := c.rules(t.Context(), n)
						if err == nil && holds(out, victim.Status.PodIP) {
							err = fmt.Errorf("%s is still in the rules of %s", victim.Status.PodIP, n)
						}
						gone[i] = asked
						return err
					})
				})
			}
			c.kubectl(t, "delete", "pod", victim.Metadata.Name, "--wait=false")
			returned := time.Now()
			watching.Wait()
			for i, n := range nodes {
				if errs[i] != nil {
					t.Fatal(errs[i])
				}
				after := gone[i].Sub(returned)
				t.Logf("%s: %s is gone from the rules %s after kubectl delete began, %s after it returned",
					n, victim.Status.PodIP, gone[i].Sub(began).Round(time.Millisecond), after.Round(time.Millisecond))
				if after > still.Allow(time.Second, began) {
					t.Errorf("%s: want at most a second after the call's return", n)
				}
			}
			for _, n := range nodes {
				out := c.must(t, n, "for i in $(seq 10); do curl -sS -f -m 5 "+w.url()+" || exit 1; done")
				if strings.Contains(out, "pod_name="+victim.Metadata.Name+"\n") {
					t.Errorf("%s: a connection went to the deleted %s", n, victim)
				}
			}
			now := c.workload(t)
			t.Logf("%s was replaced by %s, which is in the rules of both nodes, %s after the deletion",
				victim, now.web[node1], time.Since(began).Round(time.Millisecond))
			if now.web[node1].Metadata.UID == victim.Metadata.UID {
				t.Errorf("%s is still there", victim)
			}
		})
	}
}
