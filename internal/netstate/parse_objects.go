package netstate

import (
	"math"
	"slices"
	"strconv"
	"strings"
)

func (p *parser) link() Object {
	l := Link{Name: p.dev()}
	p.expect("mtu")
	l.MTU = p.num(p.next("MTU"), "MTU", math.MaxInt32)
	if p.have("address") {
		l.MAC = p.mac("address")
	}
	if p.have("master") {
		l.Master = p.dev()
	}
	l.Port = p.port()
	if p.have("alias") {
		if l.Alias = p.next("alias"); l.Alias == "" {
			p.fail("empty alias: leave it out")
		}
	}
	if l.Up = p.have("up"); !l.Up {
		p.expect("down")
	}
	p.expect("type")
	switch l.Type = LinkType(p.next("link type")); l.Type {
	case TypeVXLAN:
		l.VXLAN = p.vxlan()
	case TypeVeth:
		if p.have("peer") {
			l.Peer = p.peer()
		}
	default:
		if t := string(l.Type); t == "" || quote(t) != t {
			p.fail("link type %q", short(t))
		}
	}
	return l
}

func (p *parser) port() Port {
	flag := func(word, on string) bool {
		if !p.have(word) {
			return false
		}
		p.expect(on)
		return true
	}
	return Port{
		Hairpin:       flag("hairpin", "on"),
		NeighSuppress: flag("neigh_suppress", "on"),
		NoLearning:    flag("learning", "off"),
		Isolated:      flag("isolated", "on"),
	}
}

func (p *parser) peer() Peer {
	p.expect("name")
	e := Peer{Name: p.dev()}
	if p.have("address") {
		e.MAC = p.mac("peer address")
	}
	if p.have("netns") {
		e.Netns = p.next("netns")
		if p.err == nil && quote(e.Netns) != e.Netns {
			p.fail("netns %q: spaces, quotes and control characters can't be written", short(e.Netns))
		}
	}
	return e
}

func (p *parser) vxlan() VXLAN {
	var v VXLAN
	p.expect("id")
	v.VNI = uint32(p.num(p.next("VNI"), "VNI", 1<<24-1))
	if p.have("local") {
		v.Local = p.ip("local address")
	}
	if p.have("dev") {
		v.Dev = p.dev()
	}
	p.expect("dstport")
	v.Port = uint16(p.num(p.next("port"), "dstport", math.MaxUint16))
	v.Learning = !p.have("nolearning")
	v.Proxy = p.have("proxy")
	v.GBP = p.have("gbp")
	return v
}

func (p *parser) sysctl() Object {
	name, value, ok := strings.Cut(p.text, "=")
	p.at = len(p.words)
	switch {
	case !ok:
		p.fail("want name=value")
	case name == "" || strings.ContainsAny(name, " \t\r\n\x00") || slices.Contains(strings.Split(name, "/"), ".."):
		p.fail("name %q: want a path below /proc/sys with slashes", short(name))
	case strings.ContainsAny(value, "\r\n\x00"):
		p.fail("value %q has more than one line", short(value))
	}
	return Sysctl{Name: name, Value: value}
}

func (p *parser) addr() Object {
	a := Addr{Prefix: p.prefix("address", false)}
	p.expect("dev")
	a.Dev = p.dev()
	if a.Prefix.Addr().Is6() {
		p.expect("nodad")
	}
	return a
}

func (p *parser) neigh() Object {
	n := Neigh{IP: p.ip("address")}
	p.expect("lladdr")
	n.MAC = p.mac("lladdr")
	p.expect("dev")
	n.Dev = p.dev()
	p.expect("nud")
	p.expect("permanent")
	return n
}

func (p *parser) fdb() Object {
	f := FDB{MAC: p.mac("MAC")}
	p.expect("dev")
	f.Dev = p.dev()
	p.expect("dst")
	f.Dst = p.ip("dst")
	p.expect("self")
	p.expect("permanent")
	return f
}

// routeTypes are the types a Route may have besides unicast, which has no word.
var routeTypes = []string{"local", "broadcast", "anycast", "multicast", "blackhole", "unreachable", "prohibit", "throw", "nat"}

// routeScopes are the words of rtm_scope.
var routeScopes = []string{"global", "site", "link", "host", "nowhere"}

func (p *parser) route() Object {
	var r Route
	for _, t := range routeTypes {
		if r.Type == "" && p.have(t) {
			r.Type = t
		}
	}
	r.Dst = p.prefix("destination", true)
	if p.have("via") {
		inet6 := p.have("inet6")
		r.Via = p.ip("gateway")
		if p.err == nil && inet6 != (r.Dst.Addr().Is4() && r.Via.Is6()) {
			p.fail("gateway %s: \"inet6\" goes with an IPv6 gateway of an IPv4 route", r.Via)
		}
	}
	if p.have("dev") {
		r.Dev = p.dev()
	}
	r.Table = p.positive("table", math.MaxInt32)
	p.expect("proto")
	if r.Proto = p.num(p.next("proto"), "proto", math.MaxUint8); r.Proto == RouteProtocol {
		r.Proto = 0
	} else if r.Proto == 0 {
		p.fail("proto 0")
	}
	if r.Scope = p.value("scope"); r.Scope != "" && !slices.Contains(routeScopes, r.Scope) {
		p.fail("scope %q: want one of %s", short(r.Scope), strings.Join(routeScopes, ", "))
	}
	if p.have("src") {
		r.Src = p.ip("src")
	}
	r.Metric = p.positive("metric", math.MaxInt32)
	r.MTU = p.positive("mtu", math.MaxInt32)
	r.Onlink = p.have("onlink")
	return r
}

func (p *parser) tunnel() Object {
	t := Tunnel{Subnet: p.prefix("subnet", true)}
	p.expect("dev")
	t.Dev = p.dev()
	if p.have("local") {
		t.Local = p.addrPort(p.next("local"), "local")
	}
	p.expect("remote")
	t.Remote = p.addrPort(p.next("remote"), "remote")
	if p.have("peer") {
		if t.PeerKey = p.next("peer"); p.err == nil && (t.PeerKey == "" || quote(t.PeerKey) != t.PeerKey) {
			p.fail("peer %q: want a public key in base64", short(t.PeerKey))
		}
	}
	t.Keepalive = p.positive("keepalive", math.MaxUint16)
	return t
}

func (p *parser) listener() Object {
	l := Listener{Protocol: p.next("protocol")}
	if p.err == nil && l.Protocol != "TCP" && l.Protocol != "UDP" {
		p.fail("protocol %q: want TCP or UDP", short(l.Protocol))
	}
	l.Addr = p.addrPort(p.next("address"), "address")
	p.expect("service")
	if l.Service = p.next("service"); p.err == nil && quote(l.Service) != l.Service {
		p.fail("service %q: want namespace/name:port", short(l.Service))
	}
	p.expect("endpoints")
	p.endpoints(&l, p.next("endpoints"))
	if p.have("balance") {
		if l.Balance = p.next("balance"); p.err == nil && l.Balance != "maglev" && l.Balance != "least-connections" {
			p.fail("balance %q: want maglev or least-connections", short(l.Balance))
		}
	}
	l.Affinity = p.positive("affinity", math.MaxInt32)
	l.Drain = p.have("drain")
	l.Fixed = p.have("fixed")
	return l
}

// endpoints reads a list of endpoints, all with a weight or none.
func (p *parser) endpoints(l *Listener, list string) {
	if list == "none" || p.err != nil {
		return
	}
	for w := range strings.SplitSeq(list, ",") {
		addr, weight, weighted := strings.Cut(w, "*")
		l.Endpoints = append(l.Endpoints, p.addrPort(addr, "endpoint"))
		if weighted {
			l.Weights = append(l.Weights, p.weight(weight))
		}
	}
	if l.Weights != nil && len(l.Weights) != len(l.Endpoints) && p.err == nil {
		p.fail("endpoints %q: want a weight for all or for none", short(list))
	}
}

func (p *parser) weight(text string) uint8 {
	n, err := strconv.ParseUint(text, 10, 8)
	if (err != nil || n == 0) && p.err == nil {
		p.fail("weight %q: want 1 to 255", short(text))
	}
	return uint8(n)
}
