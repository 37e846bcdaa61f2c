package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

// Runner is the host's side: what runs the programs.
type Runner interface {
	Start(name string, s Spec) error
	Stop(name string) error
	Signal(name string, sig syscall.Signal) error
	List() []Status
}

const (
	maxBody     = 64 << 20
	dialTimeout = 10 * time.Second
)

// Serve answers on l until it is closed.
func Serve(l net.Listener, r Runner) error {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /programs", func(w http.ResponseWriter, _ *http.Request) {
		if err := json.NewEncoder(w).Encode(r.List()); err != nil {
			fail(w, err)
		}
	})
	mux.HandleFunc("POST /programs/{name}/start", func(w http.ResponseWriter, q *http.Request) {
		var s Spec
		if err := json.NewDecoder(http.MaxBytesReader(w, q.Body, maxBody)).Decode(&s); err != nil {
			fail(w, fmt.Errorf("decode program: %w", err))
			return
		}
		fail(w, r.Start(q.PathValue("name"), s))
	})
	mux.HandleFunc("POST /programs/{name}/stop", func(w http.ResponseWriter, q *http.Request) {
		fail(w, r.Stop(q.PathValue("name")))
	})
	mux.HandleFunc("POST /programs/{name}/signal", func(w http.ResponseWriter, q *http.Request) {
		n, err := strconv.Atoi(q.FormValue("signal"))
		if err != nil {
			fail(w, fmt.Errorf("decode signal: %w", err))
			return
		}
		fail(w, r.Signal(q.PathValue("name"), syscall.Signal(n)))
	})
	mux.HandleFunc("GET /file", func(w http.ResponseWriter, q *http.Request) {
		data, err := os.ReadFile(q.FormValue("path"))
		if err != nil {
			fail(w, err)
			return
		}
		_, _ = w.Write(data) // the client is gone: nobody to tell
	})
	mux.HandleFunc("PUT /file", func(w http.ResponseWriter, q *http.Request) {
		fail(w, writeFile(q.URL.Query().Get("path"), http.MaxBytesReader(w, q.Body, maxBody)))
	})
	mux.HandleFunc("GET /dial", dial)
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: dialTimeout}
	if err := srv.Serve(l); !errors.Is(err, net.ErrClosed) && !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve control socket: %w", err)
	}
	return nil
}

// fail answers with err, or with success when there is none.
func fail(w http.ResponseWriter, err error) {
	if err == nil {
		return
	}
	for code, kind := range codes {
		if errors.Is(err, kind) {
			w.Header().Set("X-Error", code)
		}
	}
	http.Error(w, err.Error(), http.StatusConflict)
}

func writeFile(path string, r io.Reader) error {
	data, err := io.ReadAll(r)
	if err != nil {
		return fmt.Errorf("read file's content: %w", err)
	}
	if !filepath.IsAbs(path) {
		return fmt.Errorf("write file %q: want an absolute path", path)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("make directory: %w", err)
	}
	return os.WriteFile(path, data, 0o600)
}

// dial connects the client to an address as the host sees it.
func dial(w http.ResponseWriter, q *http.Request) {
	ctx, cancel := context.WithTimeout(q.Context(), dialTimeout)
	defer cancel()
	out, err := new(net.Dialer).DialContext(ctx, q.FormValue("network"), q.FormValue("addr"))
	if err != nil {
		fail(w, err)
		return
	}
	defer out.Close()
	in, buf, err := http.NewResponseController(w).Hijack()
	if err != nil {
		fail(w, fmt.Errorf("take over connection: %w", err))
		return
	}
	defer in.Close()
	if _, err := fmt.Fprintf(in, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n", upgrade); err != nil {
		return
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = io.Copy(out, buf) // an error ends the connection, which the other side sees
		closeWrite(out)
	}()
	_, _ = io.Copy(in, out)
	closeWrite(in)
	<-done
}

// closeWrite passes on the end of one direction.
func closeWrite(c net.Conn) {
	if half, ok := c.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
	}
}
