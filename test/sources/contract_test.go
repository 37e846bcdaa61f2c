package sources_test

import (
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	"weft/internal/agent/facts"
	"weft/internal/api"
	"weft/internal/attach"
	"weft/internal/explain"
	"weft/internal/kernel/netns"
	"weft/internal/masq/contract"
	flow "weft/internal/packet"
)

// service is one of the lab's, over TCP and UDP.
type service struct {
	number    byte
	endpoint  string
	node      string
	nodePort  uint16
	keepLocal bool
}

var byDestination = map[contract.Destination]service{
	contract.ToService: {1, "b", "n1", 30001, false}, contract.ToServiceAway: {2, "c", "n2", 30002, false},
	contract.ToServiceSelf: {3, "a", "n1", 0, false}, contract.ToPortLocal: {4, "b", "n1", 30004, true},
}

func vip(n byte) [2]netip.Addr {
	return [2]netip.Addr{netip.AddrFrom4([4]byte{10, 254, 0, n}), netip.AddrFrom16([16]byte{0: 0xfd, 3: 0xfe, 15: n})}
}

const servicePort = 8080

func services() []api.ServicePort {
	var out []api.ServicePort
	for _, s := range byDestination {
		a := vip(s.number)
		for _, proto := range []api.Protocol{api.TCP, api.UDP} {
			p := api.ServicePort{
				Name: api.ServicePortName{Namespace: "default", Name: "s" + string('0'+rune(s.number)), Port: string(proto)}, Protocol: proto,
				Port: servicePort, NodePort: s.nodePort, ExternalLocal: s.keepLocal, ClusterIPs: a[:],
			}
			for _, e := range own[s.endpoint] {
				p.Endpoints = append(p.Endpoints, api.Endpoint{Addr: netip.AddrPortFrom(e, podPort), Node: s.node, Ready: true, Serving: true})
			}
			out = append(out, p)
		}
	}
	slices.SortFunc(out, func(a, b api.ServicePort) int {
		return strings.Compare(a.Name.String()+string(a.Protocol), b.Name.String()+string(b.Protocol))
	})
	return out
}

var senders = map[contract.Sender]string{
	contract.Pod: "a", contract.PodAway: "c", contract.Node: "n1", contract.Outside: "outside", contract.Behind: "behind", contract.PodOnLink: "a",
}

// target is where a row sends to, and who receives it.
func target(d contract.Destination, from contract.Sender, v6 bool) (to netip.AddrPort, receiver string) {
	i := index(v6)
	at := func(a netip.Addr, host string) (netip.AddrPort, string) { return netip.AddrPortFrom(a, podPort), host }
	switch d {
	case contract.ToPod:
		return at(own["b"][i], "b")
	case contract.ToPodAway:
		return at(own["c"][i], "c")
	case contract.ToNode:
		return at(own["n1"][i], "n1")
	case contract.ToGateway:
		return at(gateway("n1", v6), "n1")
	case contract.ToNodeAway:
		return at(own["n2"][i], "n2")
	case contract.ToOutside:
		return at(own["outside"][i], "outside")
	case contract.ToOpen:
		return at(open[i], "outside")
	case contract.ToMetadata:
		return at(metadata, "outside")
	case contract.ToLinkLocal:
		return at(ip("fe80::1%eth0"), "n1")
	case contract.ToMulticast:
		to := groups[i]
		if v6 {
			to = to.WithZone("eth0")
		}
		return netip.AddrPortFrom(to, multicastPort), map[contract.Sender]string{contract.Pod: "b", contract.Node: "outside"}[from]
	case contract.ToNodePort:
		return netip.AddrPortFrom(own["n1"][i], byDestination[contract.ToService].nodePort), "b"
	case contract.ToPortAway:
		return netip.AddrPortFrom(own["n1"][i], byDestination[contract.ToServiceAway].nodePort), "c"
	case contract.ToPortLocal:
		return netip.AddrPortFrom(own["n1"][i], byDestination[d].nodePort), "b"
	}
	s := byDestination[d]
	return netip.AddrPortFrom(vip(s.number)[i], servicePort), s.endpoint
}

func subnet(node string, v6 bool) netip.Addr {
	if v6 {
		return ip("fd00:20:0:" + strings.TrimPrefix(node, "n") + "::")
	}
	return ip("172.20." + strings.TrimPrefix(node, "n") + ".0")
}

func gateway(node string, v6 bool) netip.Addr { return subnet(node, v6).Next() }

// address is the source that the contract names, of a packet of the sender.
func address(s contract.Source, from contract.Sender, backend string, v6 bool) netip.Addr {
	i := index(v6)
	node := "n1"
	if from == contract.PodAway && s == contract.Overlay {
		node = "n2"
	}
	switch s {
	case contract.Own:
		return own[senders[from]][i]
	case contract.Gateway:
		return gateway(node, v6)
	case contract.Overlay:
		for _, b := range contract.Backends {
			if b.Name == backend && b.Device != "" {
				return subnet(node, v6)
			}
		}
	}
	return own[node][i]
}

// flowOf is one row as packets: in a family, over a protocol.
type flowOf struct {
	contract.Row
	packet
	v6      bool
	want    string // "HOST SOURCE" or "lost"
	perhaps bool   // or "lost"
}

// flows are those of the contract for a config.
func (l *lab) flows(c config) []flowOf {
	var out []flowOf
	mode := slices.Index(contract.Modes[:], c.mode)
	for _, r := range contract.Rows {
		if !r.For(string(c.attach), c.backend) {
			continue
		}
		for _, v6 := range []bool{false, true} {
			if r.Only&contract.V4 != 0 && v6 || r.Only&contract.V6 != 0 && !v6 {
				continue
			}
			for _, network := range []string{"tcp", "udp"} {
				deaf := slices.Contains(r.Deaf, c.mode) || r.Only&contract.UDP != 0
				if deaf && network == "tcp" {
					continue
				}
				l.port++
				f := flowOf{Row: r, v6: v6, packet: packet{from: senders[r.From], network: network, port: l.port}}
				var receiver string
				f.to, receiver = target(r.To, r.From, v6)
				if r.From == contract.Outside {
					f.src = own["outside"][index(v6)]
				}
				seen := r.Seen[mode]
				if f.perhaps = seen == contract.Perhaps; f.perhaps {
					seen = contract.Own
				}
				if f.want = "lost"; seen != contract.Lost {
					f.want = receiver + " " + address(seen, r.From, c.backend, v6).String()
				}
				out = append(out, f)
			}
		}
	}
	return out
}

// explained asks explain what becomes of the flow.
func (f flowOf) explained(w explain.World) string {
	from := f.from
	if from == "a" || from == "b" || from == "c" {
		from = "default/" + from
	}
	trace, err := explain.Walk(w, from, flow.Flow{Proto: f.network, Src: netip.AddrPortFrom(f.src, 0), Dst: f.to}, nil)
	switch {
	case err != nil:
		return err.Error()
	case trace.Verdict != explain.Delivered:
		return "lost"
	}
	return strings.TrimPrefix(trace.End, "default/") + " " + trace.Flows[len(trace.Flows)-1].Src.Addr().String()
}

// onLink are the destinations that no rule and no route decides about.
func (f flowOf) onLink() bool { return f.To == contract.ToMulticast || f.To == contract.ToLinkLocal }

// TestContract sends every row in every combination of backend, rendering and policy, a lab for each attachment.
func TestContract(t *testing.T) {
	netns.Need(t)
	for _, attachment := range []attach.Mode{attach.Routed, attach.Bridge, attach.L2} {
		t.Run(string(attachment), func(t *testing.T) {
			l := newLab(t)
			nodes := []*node{l.newNode(t, "n1"), l.newNode(t, "n2")}
			backends := []string{"l2"}
			if attachment != attach.L2 {
				backends = nil
				for _, b := range contract.Backends {
					backends = append(backends, b.Name)
				}
			}
			sent := 0
			for i, backend := range backends {
				c := config{attachment, backend, facts.NFTables, contract.Modes[0]}
				for _, n := range nodes {
					l.applyState(t, n, l.world(t, c, nodes))
				}
				if i == 0 {
					l.start(t, attachment)
				}
				l.shakeHands()
				for _, c.proxy = range []facts.ProxyMode{facts.NFTables, facts.IPTables} {
					for _, c.mode = range contract.Modes {
						t.Run(c.String(), func(t *testing.T) { sent += l.prove(t, c, nodes) })
					}
				}
			}
			t.Logf("%d flows", sent)
		})
	}
}

// start makes everybody listen.
func (l *lab) start(t *testing.T, attachment attach.Mode) {
	t.Helper()
	for _, h := range hosts {
		l.listen(t, h)
	}
	if attachment == attach.L2 {
		return
	}
	l.join(t, "outside")
	if attachment == attach.Bridge {
		l.join(t, "b")
	}
}

// shakeHands sends a packet each way first: a tunnel whose two ends begin their first handshake at once tries again only after seconds.
func (l *lab) shakeHands() {
	for i, a := range own["c"] {
		for _, p := range []packet{{from: "a", to: netip.AddrPortFrom(a, podPort)}, {from: "c", to: netip.AddrPortFrom(own["a"][i], podPort)}} {
			l.port++
			p.network, p.port = "udp", l.port
			_ = l.send(p, patience) // who does not get through will be seen
		}
	}
}

// prove applies the rules of a config, and explains and sends the flows. It returns how many there are.
func (l *lab) prove(t *testing.T, c config, nodes []*node) int {
	t.Helper()
	w := l.world(t, c, nodes)
	for _, n := range nodes {
		l.applyRules(t, n, w)
	}
	flows := l.flows(c)
	if c.backend != "l2" && len(flows) < 80 {
		t.Errorf("%d flows", len(flows))
	}
	for i, got := range l.sendAll(flows) {
		flows[i].check(t, w, got)
	}
	return len(flows)
}

// sendAll sends all at once and returns what was seen of each.
func (l *lab) sendAll(flows []flowOf) []string {
	var wg sync.WaitGroup
	got := make([]string, len(flows))
	for i, f := range flows {
		wg.Go(func() {
			wait := patience
			if f.want == "lost" || f.perhaps {
				wait = despair
			}
			got[i] = l.send(f.packet, wait)
		})
	}
	wg.Wait()
	return got
}

// check compares what the receiver saw, and what explain says, with the contract.
func (f flowOf) check(t *testing.T, w explain.World, got string) {
	t.Helper()
	row := string(f.From) + " to " + string(f.To) + ", " + family(f.v6) + ", " + f.network
	right := func(got string) bool { return got == f.want || f.perhaps && got == "lost" }
	if (f.want == "lost" || f.perhaps) && strings.HasPrefix(got, "not sent") {
		got = "lost"
	}
	if fe80 := strings.HasPrefix(got, "n1 fe80::"); !right(got) && (f.To != contract.ToLinkLocal || !fe80) {
		t.Errorf("%s: really %q, want %q", row, got, f.want)
	}
	if said := f.explained(w); !f.onLink() && !right(said) {
		t.Errorf("%s: explain says %q, want %q", row, said, f.want)
	}
}
