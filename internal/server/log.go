package server

import (
	"context"
	"io"
	"log/slog"
	"strings"

	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"
)

// quiet makes the upstream parts log through handler: errors only, and more the higher the verbosity. Their warnings and
// infos tell of every step of a start that went well.
func quiet(handler slog.Handler, verbosity int) {
	level := slog.LevelError
	if verbosity > 0 {
		level = slog.Level(-verbosity)
	}
	klog.SetSlogLogger(slog.New(upstreamHandler{handler, level}))
	var v klog.Level
	_ = v.Set(itoa(verbosity)) // an int parses
	rest.SetDefaultWarningHandler(rest.NoWarnings{})
}

// upstreamHandler drops what is below its level, and the errors upstream logs in the ordinary course of a stop.
type upstreamHandler struct {
	slog.Handler
	level slog.Level
}

// Enabled implements slog.Handler.
func (h upstreamHandler) Enabled(_ context.Context, level slog.Level) bool { return level >= h.level }

// Handle implements slog.Handler.
func (h upstreamHandler) Handle(ctx context.Context, r slog.Record) error {
	if h.level == slog.LevelError && benign(r) {
		return nil
	}
	return h.Handler.Handle(ctx, r)
}

// WithAttrs implements slog.Handler.
func (h upstreamHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return upstreamHandler{h.Handler.WithAttrs(attrs), h.level}
}

// WithGroup implements slog.Handler.
func (h upstreamHandler) WithGroup(name string) slog.Handler {
	return upstreamHandler{h.Handler.WithGroup(name), h.level}
}

// benign reports whether the record is an error only in name.
func benign(r slog.Record) bool {
	text := r.Message
	r.Attrs(func(a slog.Attr) bool {
		text += " " + a.Value.String()
		return true
	})
	for _, part := range ordinary {
		if strings.Contains(text, part) {
			return true
		}
	}
	return false
}

// ordinary are parts of the errors that mend themselves or are somebody else's to report.
var ordinary = []string{
	"context canceled",                   // a watch or a request cut short by the stop
	"use of closed network connection",   // kubectl exec has ended and one side was faster
	"http: Server closed",                // the stop itself
	"the object has been modified",       // two writers: the loser reads again
	"not as new as written version",      // a cache behind a write: the controller tries again
	"not found",                          // an object deleted while a controller looked at it
	"is not allocated; repairing",        // a service seen before its IPAddress: it is there a moment later
	"already exists",                     // two makers of one object
	"is being terminated",                // a namespace on its way out refuses new objects
	"will retry",                         // what says so itself
	"TLS handshake error",                // a port probe, or a client that does not trust us: it has the error
	"Unable to authenticate the request", // a bad token: its bearer has the 401
	"Timeout or abort while handling",    // a client that left
	"Post-timeout activity",              // the same
	"spec.podCIDRs: Invalid value",       // a node looked at again before its podCIDR came back from the store
	"failed to patch node CIDR",          // the same
	"The manifest file is empty",         // an option nobody set (component-base/metrics)
	"not an metav1.Status",               // a node that cannot be reached: who asked for its logs has the error
}

// newLogger is weft-server's own log: text lines on w.
func newLogger(w io.Writer) *slog.Logger { return slog.New(slog.NewTextHandler(w, nil)) }
