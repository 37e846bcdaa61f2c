package services

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"testing"

	"weft/internal/agent/agenttest"
	"weft/internal/agent/facts"
	"weft/internal/agent/healthports"
	kernelnft "weft/internal/kernel/nft"
	kernelxt "weft/internal/kernel/xt"
)

// TestSingle: what the kernel refuses of one service is no reason to call the node unhealthy, anything else is.
func TestSingle(t *testing.T) {
	element, rule, port := &kernelnft.Refused{Err: errors.New("no such file")}, &kernelxt.RefusedError{}, &listenError{errors.New("in use")}
	for _, c := range []struct {
		err  error
		want bool
	}{
		{nil, true},
		{fmt.Errorf("service default/web: %w", element), true},
		{errors.Join(element, errors.Join(rule, nil), port), true},
		{errors.New("read table inet weft: no buffer space"), false},
		{errors.Join(element, errors.New("apply rules of table nat: nothing changed")), false},
	} {
		if single(c.err) != c.want {
			t.Errorf("%v: %v", c.err, !c.want)
		}
	}
}

// TestTakenHealthPort: a healthCheckNodePort that another program has is a warning, no failed step: that would hold up every change of services.
func TestTakenHealthPort(t *testing.T) {
	taken, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	web := agenttest.Nginx("172.16.78.9:80")
	web.HealthCheckNodePort = uint16(taken.Addr().(*net.TCPAddr).Port)
	p := newProxyLoop(facts.NFTables, &kernelxt.Fake{}, &fakeTable{}, web)
	p.health = healthports.New(slog.New(slog.DiscardHandler), func() bool { return true })
	defer p.health.Close()
	step(t, p)
	if w := p.findWarnings(); len(w) != 1 || !strings.Contains(w[0], "default/my-nginx-service: healthCheckNodePort") {
		t.Errorf("warnings %q", w)
	}
}
