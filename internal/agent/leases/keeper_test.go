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
	if got := log.String(); strings.Count(got, "waiting for the network configuration") != 1 || strings.Count(got, "connection refused") != 2 {
		t.Errorf("log:\n%s", got)
	}
	web := httptest.NewServer(http.NotFoundHandler())
	defer web.Close()
	err := wait(web.URL, 20*time.Second)
	if !errors.Is(err, etcd.ErrDenied) || !strings.Contains(err.Error(), "speaks HTTP/1, so it is not etcd's client port: correct --etcd-endpoints") {
		t.Errorf("a web server: %v", err)
	}
}
