package status

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// TestDebugRoutes: profiles are there, and a bad question is told what to ask.
func TestDebugRoutes(t *testing.T) {
	mux := http.NewServeMux()
	debugRoutes(mux)
	get := func(path string) (int, string) {
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, httptest.NewRequestWithContext(context.Background(), http.MethodGet, path, nil))
		return w.Code, w.Body.String()
	}
	if code, body := get("/debug/heap"); code != http.StatusOK || !strings.HasPrefix(body, "\x1f\x8b") { // gzip
		t.Errorf("heap: %d %.20q", code, body)
	}
	if code, body := get("/debug/goroutines"); code != http.StatusOK || !strings.Contains(body, "TestDebugRoutes") {
		t.Errorf("goroutines: %d %s", code, body)
	}
	for _, seconds := range []string{"", "0", "61", "x"} {
		code, body := get("/debug/cpu?seconds=" + seconds)
		if code != http.StatusBadRequest || !strings.Contains(body, "want 1 to 60") {
			t.Errorf("seconds=%s: %d %s", seconds, code, body)
		}
	}
}
