package images

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"
)

// serveHTTP stands in for nginx: every request is answered with who answers and whom it sees asking, and logged to out in nginx's
// "combined" format.
func serveHTTP(l net.Listener, out io.Writer) error {
	var mu sync.Mutex // a log line at a time
	pod := hostname()
	s := &http.Server{
		ReadHeaderTimeout: time.Minute, // as nginx: a telnet session may think
		IdleTimeout:       75 * time.Second,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			client, server := peer(r.RemoteAddr), local(r)
			body := whoIs(pod, server, client, r)
			w.Header().Set("Content-Type", "text/plain; charset=utf-8")
			w.Header().Set("Server", "weft-nginx")
			n, _ := io.WriteString(w, body) // who asked may have gone
			if r.Method == http.MethodHead {
				n = 0
			}
			mu.Lock()
			defer mu.Unlock()
			fmt.Fprintf(out, "%s - - [%s] %q %d %d %q %q\n", client.Addr(), time.Now().Format("02/Jan/2006:15:04:05 -0700"),
				r.Method+" "+r.RequestURI+" "+r.Proto, http.StatusOK, n, orDash(r.Referer()), orDash(r.UserAgent()))
		}),
	}
	return s.Serve(l)
}

// whoIs is the answer: one key=value a line.
func whoIs(pod string, server, client netip.AddrPort, r *http.Request) string {
	var b strings.Builder
	fmt.Fprintf(&b, "pod_name=%s\n", pod)
	fmt.Fprintf(&b, "pod_ip=%s\n", server.Addr())
	fmt.Fprintf(&b, "pod_port=%d\n", server.Port())
	fmt.Fprintf(&b, "client_address=%s\n", client.Addr())
	fmt.Fprintf(&b, "client_port=%d\n", client.Port())
	fmt.Fprintf(&b, "request=%s %s\n", r.Method, r.URL.Path)
	fmt.Fprintf(&b, "host=%s\n", r.Host)
	return b.String()
}

// peer parses an address; an IPv4 one that came through an IPv6 socket is IPv4.
func peer(text string) netip.AddrPort {
	ap, err := netip.ParseAddrPort(text)
	if err != nil {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}

// local is the address that the client reached: behind the last DNAT, so the pod's own.
func local(r *http.Request) netip.AddrPort {
	if a, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr); ok {
		return peer(a.String())
	}
	return netip.AddrPort{}
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
