package leases

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"weft/internal/store/etcd"
)

// TestWaitConfig: an agent that starts waits for its store and says what for; where waiting does not help it ends.
func TestWaitConfig(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	wait := func(endpoint string, bound time.Duration) error {
		kv, err := etcd.Open(etcd.Config{Endpoints: []string{endpoint, endpoint}, Timeout: 500 * time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		defer kv.Close()
		ctx, stop := context.WithTimeout(t.Context(), bound)
		defer stop()
		_, err = WaitConfig(ctx, kv, slog.New(slog.NewTextHandler(&log, nil)))
		return err
	}
	if err := wait("http://127.0.0.1:9", 3*time.Second); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("nobody there: %v", err)
	}
	said := map[string]int{}
	for line := range strings.Lines(log.String()) {
		_, what, _ := strings.Cut(line, "level=")
		said[what]++
		if !strings.HasPrefix(what, `WARN msg="waiting for the network configuration"`) || said[what] > 1 { // a slow machine gives more than one reason
			t.Errorf("log:\n%s", &log)
		}
	}
	if !strings.Contains(log.String(), "connection refused") {
		t.Errorf("log:\n%s", &log)
	}
	web := httptest.NewServer(http.NotFoundHandler())
	defer web.Close()
	err := wait(web.URL, time.Minute)
	if !errors.Is(err, etcd.ErrDenied) || !strings.Contains(err.Error(), "speaks HTTP/1, so it is not etcd's client port: correct --etcd-endpoints") {
		t.Errorf("a web server: %v", err)
	}
}
