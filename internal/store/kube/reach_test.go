package kube

import (
	"errors"
	"log/slog"
	"strings"
	"testing"
)

// TestAway: what can't be read is named until all of it is read again, and the log has two lines of it.
func TestAway(t *testing.T) {
	var log strings.Builder
	s := &Store{reach: reach{log: slog.New(slog.NewTextHandler(&log, nil))}}
	refused := errors.New("connection refused")
	for _, x := range []struct {
		resource string
		err      error
		want     string
	}{
		{"nodes", nil, ""},
		{"services", refused, "Kubernetes API: services can't be read since 2"},
		{"nodes", refused, "Kubernetes API: nodes, services can't be read since 2"},
		{"nodes", nil, "connection refused; what was last known stays in force"},
		{"pods", nil, "Kubernetes API: services can't"},
		{"services", nil, ""},
	} {
		s.reach.note(x.resource, x.err)
		if got := s.Away(); !strings.Contains(got, x.want) || (x.want == "") != (got == "") {
			t.Errorf("%s: %v: %q, want %q", x.resource, x.err, got, x.want)
		}
		var b strings.Builder
		s.WriteMetrics(&b)
		if want := map[bool]string{true: "weft_api_away 0\n", false: "weft_api_away 1\n"}[x.want == ""]; !strings.Contains(b.String(), want) {
			t.Errorf("no %s in %s", want, &b)
		}
	}
	if n := strings.Count(log.String(), "\n"); n != 2 {
		t.Errorf("%d lines:\n%s", n, &log)
	}
	if (*Store)(nil).Away() != "" {
		t.Error("no API at all is not away")
	}
}
