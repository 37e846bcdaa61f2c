package probe

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

func TestCounter(t *testing.T) {
	for _, c := range []struct {
		name             string
		success, failure int32
		answers, want    string // + and -; state reached: upper letter, state kept: lower
	}{
		{"defaults", 0, 0, "+---+", "RrrFR"},
		{"one failure", 1, 1, "+-+-", "RFRF"},
		{"two successes", 2, 1, "+++-+", "fRrFf"},
		{"failure threshold again and again", 1, 2, "----", "fFfF"},
		{"success between failures", 1, 3, "--+--", "ffRrr"},
	} {
		t.Run(c.name, func(t *testing.T) {
			count := NewCounter(&corev1.Probe{SuccessThreshold: c.success, FailureThreshold: c.failure})
			got := ""
			for _, a := range c.answers {
				state, reached := count.Add(a == '+')
				letter := map[bool]string{true: "r", false: "f"}[state]
				if reached {
					letter = strings.ToUpper(letter)
				}
				got += letter
			}
			if got != c.want {
				t.Errorf("%s: %s, want %s", c.answers, got, c.want)
			}
		})
	}
}

func TestOnce(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/ok":
			if r.Host != "me" || r.URL.RawQuery != "a=b" {
				w.WriteHeader(http.StatusTeapot)
			}
		case "/away":
			http.Redirect(w, r, "http://192.0.2.1/", http.StatusFound)
		case "/slow":
			<-r.Context().Done()
		default:
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	defer s.Close()
	host, portText, err := net.SplitHostPort(s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	port, err := strconv.Atoi(portText)
	if err != nil {
		t.Fatal(err)
	}
	target := Target{
		Host: host, Container: &corev1.Container{Name: "c", Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: int32(port)}}},
		Exec: func(_ context.Context, cmd []string, out io.Writer) (int, error) {
			if cmd[0] == "broken" {
				return 0, errors.New("no such program")
			}
			_, _ = io.WriteString(out, "said "+strings.Repeat("x", 2*maxOutput))
			return len(cmd) - 1, nil
		},
	}
	get := func(path string) corev1.ProbeHandler {
		return corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{
			Path: path, Port: intstr.FromString("http"), HTTPHeaders: []corev1.HTTPHeader{{Name: "host", Value: "me"}},
		}}
	}
	tcp := func(p intstr.IntOrString) corev1.ProbeHandler {
		return corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: p}}
	}
	run := func(cmd ...string) corev1.ProbeHandler {
		return corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: cmd}}
	}
	for _, c := range []struct {
		name string
		h    corev1.ProbeHandler
		want string
	}{
		{"http", get("/ok?a=b"), ""},
		{"http without slash", get("ok?a=b"), ""},
		{"http 503", get("/no"), "HTTP probe failed with statuscode: 503"},
		{"http redirect elsewhere", get("/away"), ""},
		{"http slow", get("/slow"), "deadline exceeded"},
		{"tcp", tcp(intstr.FromInt32(int32(port))), ""},
		{"tcp closed", tcp(intstr.FromInt32(1)), "connection refused"},
		{"tcp unknown port", tcp(intstr.FromString("nope")), `port "nope"`},
		{"exec", run("true"), ""},
		{"exec fails", run("false", "x"), "ended with exit code 1: said xxx"},
		{"exec broken", run("broken"), "no such program"},
		{"grpc", corev1.ProbeHandler{GRPC: &corev1.GRPCAction{Port: 1}}, "not supported"},
		{"nothing", corev1.ProbeHandler{}, "names no action"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := &corev1.Probe{ProbeHandler: c.h, TimeoutSeconds: 30}
			if c.want == "deadline exceeded" {
				p.TimeoutSeconds = 1
			}
			err := Once(t.Context(), p, target)
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("%v, want %q", err, c.want)
			}
			if err != nil && len(err.Error()) > maxOutput+200 {
				t.Errorf("message of %d bytes", len(err.Error()))
			}
		})
	}
}

func TestRunWaitsForTheDelay(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	began := time.Now()
	p := &corev1.Probe{InitialDelaySeconds: 10, ProbeHandler: corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"x"}}}}
	exec := func(context.Context, []string, io.Writer) (int, error) { return 0, nil }
	// The container is 9.9 s old: a tenth of a second is left.
	Run(ctx, p, began.Add(-9900*time.Millisecond), Target{Exec: exec}, func(r Report) {
		if age := time.Since(began); age < 90*time.Millisecond || age > 5*time.Second || !r.OK || !r.Reached {
			t.Errorf("first answer %+v after %s", r, age)
		}
		cancel()
	})
	if ctx.Err() == nil {
		t.Error("no answer")
	}
}
