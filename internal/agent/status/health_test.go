package status

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"
)

// leaver is a node with an agent.
type leaver struct{ leaves, late bool }

func (leaver) Status() Status  { return Status{} }
func (l leaver) Leaving() bool { return l.leaves }
func (l leaver) Updated() (time.Time, bool) {
	return time.Unix(1, 0).UTC(), !l.late
}
func (l leaver) Ready() (err error) { return nil }

// TestHealth: a node on its way out asks load balancers for nothing new, and that is no reason to restart its agent.
func TestHealth(t *testing.T) {
	p := &probes{}
	for _, leaves := range []bool{false, true} {
		mux := http.NewServeMux()
		p.routes(mux, leaver{leaves: leaves})
		for path, want := range map[string]int{"/healthz": map[bool]int{false: 200, true: 503}[leaves], "/livez": 200, "/readyz": 200} {
			w := httptest.NewRecorder()
			mux.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
			if w.Code != want {
				t.Errorf("%s of a node that leaves (%v): %d, want %d", path, leaves, w.Code, want)
			}
			var body map[string]any
			if path == "/readyz" {
				continue
			}
			if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil || body["lastUpdated"] != "1970-01-01T00:00:01Z" {
				t.Errorf("%s: %s, %v", path, w.Body, err)
			}
			if eligible, told := body["nodeEligible"]; told != (path == "/healthz") || told && eligible == leaves {
				t.Errorf("%s of a node that leaves (%v): %s", path, leaves, w.Body)
			}
		}
	}
	var b strings.Builder
	p.writeMetrics(&b)
	for _, want := range []string{
		`kubeproxy_proxy_healthz_total{code="200"} 1`, `kubeproxy_proxy_healthz_total{code="503"} 1`, `kubeproxy_proxy_livez_total{code="200"} 2`,
	} {
		if !strings.Contains(b.String(), want+"\n") {
			t.Errorf("no %s in:\n%s", want, &b)
		}
	}
}

// TestHealthMetricsOnThePage: what the page for those who come from kube-proxy calls the same of health is there.
func TestHealthMetricsOnThePage(t *testing.T) {
	page, err := os.ReadFile("../../../docs/migration/from-kube-proxy.md")
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	new(probes).writeMetrics(&b)
	found := regexp.MustCompile("# TYPE (kubeproxy_[a-z_]+)").FindAllStringSubmatch(b.String(), -1)
	if len(found) != len(regexp.MustCompile("kubeproxy_proxy_[a-z_]+").FindAllString(string(page), -1)) {
		t.Errorf("the page names others than %v", found)
	}
	for _, m := range found {
		if !strings.Contains(string(page), m[1]) {
			t.Errorf("no %s on the page", m[1])
		}
	}
}

// TestLateRulesAreUnhealthy: while the rules are behind for long, load balancers are told to send nothing, and whoever watches over the agent to
// start it again, as kube-proxy does.
func TestLateRulesAreUnhealthy(t *testing.T) {
	for _, late := range []bool{false, true} {
		mux := http.NewServeMux()
		new(probes).routes(mux, leaver{late: late})
		for path, want := range map[string]int{"/healthz": 200, "/livez": 200, "/readyz": 200} {
			if late && path != "/readyz" {
				want = 503
			}
			w := httptest.NewRecorder()
			mux.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
			if w.Code != want {
				t.Errorf("%s of late rules (%v): %d, want %d", path, late, w.Code, want)
			}
			if path != "/readyz" && strings.Contains(w.Body.String(), `"healthy":true`) == late {
				t.Errorf("%s of late rules (%v): %s", path, late, w.Body)
			}
		}
	}
}
