package explain

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"weft/internal/maglev"
	"weft/internal/netstate"
	"weft/internal/packet"
)

// Step is one decision on the way of a packet.
type Step struct {
	Host   string `json:"host"`
	Point  string `json:"point"`  // hook or lookup: "prerouting", "route", "neigh", "fdb", "bridge", "vxlan", "listener", ...
	Object string `json:"object"` // the object that decided, as its command or save line prints it
	Effect string `json:"effect"` // what changed: "dst 172.16.28.1:50948", "out flannel.1", ...
	Packet string `json:"packet"` // the flow after the step
}

// Verdict says how a walk ended.
type Verdict string

// The verdicts.
const (
	Delivered Verdict = "delivered"
	Dropped   Verdict = "dropped"
	Rejected  Verdict = "rejected"
	NoRoute   Verdict = "no route"
	Left      Verdict = "leaves the cluster" // by the underlay, to an address no node has
)

// Trace is the way of a packet. A relay ends the connection and opens another: its flow is in Flows again.
type Trace struct {
	Steps   []Step        `json:"steps"`
	Flows   []packet.Flow `json:"flows"`
	Verdict Verdict       `json:"verdict"`
	End     string        `json:"end"` // the host that got the packet, or where it ended
}

// maxSteps bounds a walk: a loop in the state is an answer, not a hang.
const maxSteps = 200

var errLoop = errors.New("the packet loops")

// Choose picks one of several equal endpoints; nil takes the first.
type Choose func([]netip.AddrPort) netip.AddrPort

type walker struct {
	w      World
	choose Choose
	t      Trace
}

// Walk follows a packet sent by a process on the host named from. A zero source address is chosen by the route, as the
// kernel does. It fails only when the question makes no sense (unknown host, a loop); a packet that is lost is an answer.
func Walk(w World, from string, f packet.Flow, choose Choose) (Trace, error) {
	k, h, err := start(w, from, f, choose)
	if err == nil {
		err = k.local(h, Packet{Flow: f})
	}
	return k.t, err
}

// Arrive follows a packet of a client outside the cluster, whose address is the flow's source, from where it reaches the host named at: by the
// device that leads back to the client.
func Arrive(w World, at string, f packet.Flow, choose Choose) (Trace, error) {
	k, h, err := start(w, at, f, choose)
	if err != nil {
		return k.t, err
	}
	r, text, ok := h.route(f.Src.Addr())
	if !ok {
		return k.t, fmt.Errorf("explain: %s has no route to %s: a packet from there finds no way back", at, f.Src.Addr())
	}
	p := Packet{Flow: f, In: r.Dev}
	k.step(h, "arrival", text, "in "+r.Dev, p)
	err = k.arrive(h, r.Dev, p)
	return k.t, err
}

// start begins a walk at the host named.
func start(w World, at string, f packet.Flow, choose Choose) (*walker, *Host, error) {
	k := &walker{w: w, choose: choose}
	h := w.host(at)
	if h == nil {
		return k, nil, fmt.Errorf("explain: no host or pod %q: known are %s", at, strings.Join(w.names(), ", "))
	}
	if choose == nil {
		k.choose = func(all []netip.AddrPort) netip.AddrPort { return all[0] }
	}
	k.t.Flows = append(k.t.Flows, f)
	return k, h, nil
}

// Owner is the name of the host, node or pod, that has the address, "" when none has.
func (w World) Owner(a netip.Addr) string {
	if h, _ := w.owner(a, false); h != nil {
		return h.Name
	}
	return ""
}

func (w World) names() []string {
	names := make([]string, len(w.Hosts))
	for i, h := range w.Hosts {
		names[i] = h.Name
	}
	slices.Sort(names)
	return names
}

func (k *walker) step(h *Host, point, object, effect string, p Packet) {
	k.t.Steps = append(k.t.Steps, Step{h.Name, point, object, effect, p.String()})
	if n := len(k.t.Flows); n == 0 || k.t.Flows[n-1] != p.Flow {
		k.t.Flows = append(k.t.Flows, p.Flow)
	}
}

func (k *walker) end(h *Host, v Verdict) error {
	k.t.Verdict, k.t.End = v, h.Name
	return nil
}

// local sends a packet that a process on h made: route, output hook, route again if that changed the destination.
func (k *walker) local(h *Host, p Packet) error {
	r, text, ok := h.route(p.Dst.Addr())
	if dev := h.devOf(p.Dst.Addr()); dev != "" {
		r, text, ok = netstate.Route{Dev: "lo", Src: p.Dst.Addr()}, "ip route: local "+p.Dst.Addr().String()+" dev lo", true
	}
	if !ok {
		k.step(h, "route", "", "no route to "+p.Dst.Addr().String(), p)
		return k.end(h, NoRoute)
	}
	p.Out = r.Dev
	effect := "out " + r.Dev
	if !p.Src.Addr().IsValid() {
		p.Src = netip.AddrPortFrom(h.source(r, p.Dst.Addr()), p.Src.Port())
		effect += ", source " + p.Src.Addr().String()
	}
	k.step(h, "route", text, effect, p)
	before := p.Dst.Addr()
	p, done, err := k.hook(h, Output, p)
	if done || err != nil {
		return err
	}
	if h.devOf(p.Dst.Addr()) != "" {
		return k.input(h, p)
	}
	if p.Dst.Addr() == before {
		return k.output(h, r, p)
	}
	return k.forwardTo(h, p, false)
}

// source is the address the kernel gives a local packet: the route's, else the device's.
func (h *Host) source(r netstate.Route, dst netip.Addr) netip.Addr {
	if r.Src.IsValid() {
		return r.Src
	}
	return h.addrOf(r.Dev, dst.Is6())
}

// arrive takes a packet that came in by device in of h.
func (k *walker) arrive(h *Host, in string, p Packet) error {
	if len(k.t.Steps) > maxSteps {
		return errLoop
	}
	p.In, p.Out = in, ""
	p, done, err := k.hook(h, Prerouting, p)
	if done || err != nil {
		return err
	}
	if h.devOf(p.Dst.Addr()) != "" {
		return k.input(h, p)
	}
	return k.forwardTo(h, p, true)
}

// input hands the packet to a socket of h, or to the relay, which opens a connection of its own.
func (k *walker) input(h *Host, p Packet) error {
	p, done, err := k.hook(h, Input, p)
	if done || err != nil {
		return err
	}
	for _, l := range netstate.Of[netstate.Listener](h.State) {
		everywhere := l.Addr.Addr().IsUnspecified() || !l.Addr.Addr().IsValid()
		if !strings.EqualFold(l.Protocol, p.Proto) || l.Addr.Port() != p.Dst.Port() || !everywhere && l.Addr.Addr() != p.Dst.Addr() {
			continue
		}
		k.step(h, "listener", "listener: "+l.String(), "accepted by the relay", p)
		if len(l.Endpoints) == 0 {
			return k.end(h, Rejected)
		}
		next := Packet{Flow: packet.Flow{Proto: p.Proto, Dst: k.connectTo(l, p.Src.Addr())}}
		return k.local(h, next)
	}
	k.step(h, "socket", "", "delivered to a process", p)
	return k.end(h, Delivered)
}

// connectTo is the endpoint that the relay connects a client to: one by its address, or any. Those of the client's family come first.
func (k *walker) connectTo(l netstate.Listener, client netip.Addr) netip.AddrPort {
	if l.Balance == "maglev" {
		return maglev.Nearest(client, l.Endpoints, l.Weights)
	}
	var fit []netip.AddrPort
	for _, e := range l.Endpoints {
		if e.Addr().Is6() == client.Is6() {
			fit = append(fit, e)
		}
	}
	if len(fit) == 0 {
		fit = l.Endpoints
	}
	return k.choose(fit)
}

// forwardTo routes a packet that is not for h itself.
func (k *walker) forwardTo(h *Host, p Packet, forwarded bool) error {
	r, text, ok := h.route(p.Dst.Addr())
	if !ok {
		k.step(h, "route", "", "no route to "+p.Dst.Addr().String(), p)
		return k.end(h, NoRoute)
	}
	p.Out = r.Dev
	k.step(h, "route", text, "out "+r.Dev, p)
	if forwarded {
		var done bool
		var err error
		if p, done, err = k.hook(h, Forward, p); done || err != nil {
			return err
		}
	}
	return k.output(h, r, p)
}

// output passes the postrouting hook and puts the packet on the device.
func (k *walker) output(h *Host, r netstate.Route, p Packet) error {
	if r.Type == "blackhole" || r.Type == "unreachable" {
		return k.end(h, Dropped)
	}
	p, done, err := k.hook(h, Postrouting, p)
	if done || err != nil {
		return err
	}
	next := p.Dst.Addr()
	if r.Via.IsValid() {
		next = r.Via
	}
	return k.transmit(h, r.Dev, next, p)
}

// hook runs every ruleset of h at the hook and applies the outcomes.
func (k *walker) hook(h *Host, hook Hook, p Packet) (Packet, bool, error) {
	if len(k.t.Steps) > maxSteps {
		return p, true, errLoop
	}
	for _, rules := range h.Rules {
		for _, o := range k.draw(rules.Eval(hook, p)) {
			var effect string
			p, effect = k.outcome(h, p, o)
			if o.Action == Accept && o.Rule == "" {
				continue
			}
			k.step(h, string(hook), o.Rule, effect, p)
			switch o.Action {
			case Drop:
				return p, true, k.end(h, Dropped)
			case Reject:
				return p, true, k.end(h, Rejected)
			}
		}
	}
	return p, false, nil
}

// draw replaces each choice by the alternative that leads to the endpoint the caller chooses.
func (k *walker) draw(all []Outcome) []Outcome {
	var out []Outcome
	for _, o := range all {
		if o.Action != OneOf {
			out = append(out, o)
			continue
		}
		var to []netip.AddrPort
		for _, alternative := range o.Alternatives {
			to = append(to, destinations(alternative)...)
		}
		chosen := o.Alternatives[0]
		if len(to) > 0 {
			want := k.choose(to)
			i := slices.IndexFunc(o.Alternatives, func(a []Outcome) bool { return slices.Contains(destinations(a), want) })
			chosen = o.Alternatives[max(i, 0)]
		}
		out = append(out, chosen...)
	}
	return out
}

func destinations(outcomes []Outcome) []netip.AddrPort {
	var to []netip.AddrPort
	for _, o := range outcomes {
		if o.Action == DNAT {
			to = append(to, o.To...)
		}
	}
	return to
}

func (k *walker) outcome(h *Host, p Packet, o Outcome) (Packet, string) {
	switch o.Action {
	case Drop:
		return p, "dropped"
	case Reject:
		return p, "rejected"
	case DNAT:
		p.Dst, p.DNATed = k.choose(o.To), true
		return p, "destination " + p.Dst.String()
	case Redirect:
		addr := netip.AddrFrom4([4]byte{127, 0, 0, 1})
		if p.In != "" {
			addr = h.addrOf(p.In, p.Dst.Addr().Is6())
		}
		p.Dst, p.DNATed = netip.AddrPortFrom(addr, o.To[0].Port()), true
		return p, "destination " + p.Dst.String()
	case Jump:
		return p, "to chain " + o.Chain
	case Masquerade:
		p.Src = netip.AddrPortFrom(h.addrOf(p.Out, p.Dst.Addr().Is6()), 0)
		return p, "source " + p.Src.Addr().String()
	case Keep:
		return p, "source " + p.Src.Addr().String() + " stays"
	case SetMark:
		p.Mark = p.Mark&^o.Mask ^ o.Mark
		return p, fmt.Sprintf("mark 0x%x", p.Mark)
	}
	return p, "accepted"
}
