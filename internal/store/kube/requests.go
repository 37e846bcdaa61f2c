package kube

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"
)

// latencyBounds are those of client-go's users for rest_client_request_duration_seconds, in seconds.
var latencyBounds = [...]float64{0.005, 0.025, 0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30, 60}

// requests counts the requests to the API under the names that Kubernetes' own programs give to the same, so that their dashboards go on.
type requests struct {
	next http.RoundTripper

	mu      sync.Mutex
	results map[result]int
	took    map[call]*latency
}

// result is what became of a request: code is the status's number, or "<error>" without an answer.
type result struct{ code, method, host string }

// call is what is asked of whom.
type call struct{ verb, host string }

// latency is a histogram.
type latency struct {
	counts [len(latencyBounds)]uint64 // not cumulative
	count  uint64
	sum    time.Duration
}

// over makes the requests go through next.
func (r *requests) over(next http.RoundTripper) http.RoundTripper {
	r.next = next
	return r
}

// RoundTrip counts the request. A watch has no duration: its answer goes on.
func (r *requests) RoundTrip(q *http.Request) (*http.Response, error) {
	begun := time.Now()
	answer, err := r.next.RoundTrip(q)
	took := time.Since(begun)
	code := "<error>"
	if err == nil {
		code = strconv.Itoa(answer.StatusCode)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.results == nil {
		r.results, r.took = map[result]int{}, map[call]*latency{}
	}
	r.results[result{code, q.Method, q.URL.Host}]++
	if q.URL.Query().Get("watch") == "" {
		r.observe(call{q.Method, q.URL.Host}, took)
	}
	return answer, err
}

func (r *requests) observe(c call, took time.Duration) {
	l := r.took[c]
	if l == nil {
		l = &latency{}
		r.took[c] = l
	}
	l.count++
	l.sum += took
	if i, _ := slices.BinarySearch(latencyBounds[:], took.Seconds()); i < len(latencyBounds) {
		l.counts[i]++
	}
}

// WriteMetrics prints the requests to the API, and whether it can be read, in the Prometheus text format; a nil Store nothing.
func (s *Store) WriteMetrics(w io.Writer) {
	if s == nil {
		return
	}
	away := 0
	if s.Away() != "" {
		away = 1
	}
	fmt.Fprintf(w, "# HELP weft_api_away 1 while the Kubernetes API can't be read: what was last known stays\n# TYPE weft_api_away gauge\n"+
		"weft_api_away %d\n", away)
	s.requests.write(w)
}

func (r *requests) write(w io.Writer) {
	r.mu.Lock()
	defer r.mu.Unlock()
	const total, seconds = "rest_client_requests_total", "rest_client_request_duration_seconds"
	fmt.Fprintf(w, "# HELP %s requests to the Kubernetes API\n# TYPE %s counter\n", total, total)
	byResult := func(a, b result) int {
		return cmp.Or(cmp.Compare(a.host, b.host), cmp.Compare(a.method, b.method), cmp.Compare(a.code, b.code))
	}
	for _, x := range slices.SortedFunc(maps.Keys(r.results), byResult) {
		fmt.Fprintf(w, "%s{code=%q,host=%q,method=%q} %d\n", total, x.code, x.host, x.method, r.results[x])
	}
	fmt.Fprintf(w, "# HELP %s until their answers began, but for watches\n# TYPE %s histogram\n", seconds, seconds)
	byCall := func(a, b call) int { return cmp.Or(cmp.Compare(a.host, b.host), cmp.Compare(a.verb, b.verb)) }
	for _, c := range slices.SortedFunc(maps.Keys(r.took), byCall) {
		l, sum, labels := r.took[c], uint64(0), fmt.Sprintf("host=%q,verb=%q", c.host, c.verb)
		for i, le := range latencyBounds {
			sum += l.counts[i]
			fmt.Fprintf(w, "%s_bucket{%s,le=\"%g\"} %d\n", seconds, labels, le, sum)
		}
		fmt.Fprintf(w, "%s_bucket{%s,le=\"+Inf\"} %d\n%s_sum{%s} %g\n%s_count{%s} %d\n",
			seconds, labels, l.count, seconds, labels, l.sum.Seconds(), seconds, labels, l.count)
	}
}
