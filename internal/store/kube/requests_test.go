package kube

import (
	"errors"
	"net/http"
	"strings"
	"testing"
)

// tripper answers with a status, 0: not at all.
type tripper func(*http.Request) int

func (f tripper) RoundTrip(q *http.Request) (*http.Response, error) {
	if code := f(q); code != 0 {
		return &http.Response{StatusCode: code, Body: http.NoBody}, nil
	}
	return nil, errors.New("refused")
}

// TestRequestMetrics: requests are counted by what became of them, and how long they took, watches apart.
func TestRequestMetrics(t *testing.T) {
	s := &Store{}
	r := s.requests.over(tripper(func(q *http.Request) int {
		return map[string]int{"/nodes": 200, "/gone": 404}[q.URL.Path]
	}))
	for _, x := range []struct{ method, url string }{
		{"GET", "https://api:6443/nodes"},
		{"GET", "https://api:6443/nodes?watch=true"},
		{"PATCH", "https://api:6443/gone"},
		{"PATCH", "https://api:6443/down"},
	} {
		q, err := http.NewRequestWithContext(t.Context(), x.method, x.url, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		if answer, err := r.RoundTrip(q); err == nil {
			_ = answer.Body.Close()
		}
	}
	var b strings.Builder
	s.WriteMetrics(&b)
	for _, want := range []string{
		`rest_client_requests_total{code="200",host="api:6443",method="GET"} 2`,
		`rest_client_requests_total{code="404",host="api:6443",method="PATCH"} 1`,
		`rest_client_requests_total{code="<error>",host="api:6443",method="PATCH"} 1`,
		`rest_client_request_duration_seconds_bucket{host="api:6443",verb="GET",le="60"} 1`,
		`rest_client_request_duration_seconds_count{host="api:6443",verb="GET"} 1`,
		`rest_client_request_duration_seconds_count{host="api:6443",verb="PATCH"} 2`,
	} {
		if !strings.Contains(b.String(), want+"\n") {
			t.Errorf("no %s in\n%s", want, &b)
		}
	}
	(*Store)(nil).WriteMetrics(nil) // an agent without an API
}
