package services

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"weft/internal/agent/agenttest"
	"weft/internal/agent/facts"
	"weft/internal/agent/loop"
	"weft/internal/api"
	"weft/internal/kernel/netns"
	kernelnft "weft/internal/kernel/nft"
	kernelxt "weft/internal/kernel/xt"
	"weft/internal/nft"
)

// spoiling is the kernel's tables, with one service's verdicts made to lead to a chain that is not there.
type spoiling struct {
	*kernelnft.Conn
	key   nft.Tuple
	reads int
}

func (s *spoiling) Compare(want *nft.Table) ([]nft.Op, error) {
	s.reads++
	return s.Conn.Compare(want)
}

func (s *spoiling) Apply(ops []nft.Op) error {
	for i := range ops {
		e := ops[i].Set.Elements
		if j := slices.IndexFunc(e, func(e nft.Element) bool { return e.Key == s.key && e.Verdict.Chain != "" }); j >= 0 && ops[i].Verb == nft.Add {
			ops[i].Set.Elements = slices.Clone(e)
			ops[i].Set.Elements[j].Verdict.Chain = "nowhere"
		}
	}
	return s.Conn.Apply(ops)
}

// TestRefusedServiceIsNamed: the kernel refuses one object of one service among many. The error names the service, the others are
// programmed, and a change of another one later does not read the table again.
func TestRefusedServiceIsNamed(t *testing.T) {
	netns.Need(t)
	conn, err := kernelnft.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	services := agenttest.Services(3000, 10)
	bad := services[1234]
	table := &spoiling{Conn: conn, key: nft.TupleBuilder(nil).Addr(bad.ClusterIPs[0]).Proto(nft.TCP).Port(bad.Port).Tuple()}
	p := newProxyLoop(facts.NFTables, &kernelxt.Fake{}, nil, services...)
	p.nft = table
	_, err = p.Step(t.Context(), loop.ByTime)
	if r, ok := errors.AsType[*kernelnft.Refused](err); !ok || len(r.Op.Set.Elements) != 1 {
		t.Fatalf("error %v", err)
	}
	if text := err.Error(); !strings.Contains(text, bad.Name.String()) || strings.Contains(text, "\n") {
		t.Errorf("error %q, want one line with %s", text, bad.Name)
	}
	if !p.syncs.Healthy(time.Now().Add(time.Hour)) {
		t.Error("one refused object of one service makes the node unhealthy for all of them")
	}
	have, err := conn.Read(nft.INet, nft.TableName)
	if err != nil || have == nil {
		t.Fatal(err)
	}
	left := nft.Diff(*p.table.Table(), have)
	if len(left) != 1 || left[0].Count() != 1 {
		t.Errorf("not programmed: %d ops", len(left))
	}
	reads := table.reads
	p.cluster = func() (api.Snapshot, bool) { return api.Snapshot{Services: agenttest.Changed(services, 42)}, true }
	if w, err := p.Step(t.Context(), loop.ByPlan); err != nil || w.Ops == 0 || table.reads != reads {
		t.Errorf("another service changed: %d ops, %d reads, %v", w.Ops, table.reads-reads, err)
	}
	if text := p.steps.LastError; !strings.Contains(text, bad.Name.String()) {
		t.Errorf("after a step that went well, with the object still refused: %q", text)
	}
	gone := slices.DeleteFunc(agenttest.Changed(services, 42), func(s api.ServicePort) bool { return s.Name == bad.Name })
	p.cluster = func() (api.Snapshot, bool) { return api.Snapshot{Services: gone}, true }
	if w, err := p.Step(t.Context(), loop.ByPlan); err != nil || w.Ops == 0 || p.steps.LastError != "" {
		t.Errorf("the service is gone: %d ops, %v, %q", w.Ops, err, p.steps.LastError)
	}
	table.key = ""
	p.cluster = func() (api.Snapshot, bool) { return api.Snapshot{Services: services}, true }
	if _, err := p.Step(t.Context(), loop.ByPlan); err != nil || p.steps.LastError != "" {
		t.Errorf("the service is back, and the kernel takes it: %v, %q", err, p.steps.LastError)
	}
	have, err = conn.Read(nft.INet, nft.TableName)
	if err != nil || len(nft.Diff(*p.table.Table(), have)) > 0 {
		t.Errorf("%v: not programmed", err)
	}
}
