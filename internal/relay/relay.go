// Package relay is the user-space engine of proxy mode userspace: it applies netstate.Listeners as the kernel applies routes. It
// accepts a service's TCP connections and UDP datagrams and passes them on to the service's endpoints: in turns, by weight, to the one with
// the fewest connections, or by the client's address.
//
// A connection whose endpoint refuses it or doesn't answer is tried at the next one. Endpoints change without closing anything:
// established connections to a removed endpoint are left to finish, UDP sessions with it end.
//
// Floor 3, edges.
package relay

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"weft/internal/netstate"
)

// Options of a Relay. The zero Options are the defaults.
type Options struct {
	Log *slog.Logger // default: slog.Default()
	// Dial connects to an endpoint; network is "tcp" or "udp".
	Dial func(ctx context.Context, network string, to netip.AddrPort) (net.Conn, error)
	// ListenTCP and ListenUDP open sockets; an address [::] is for both families.
	ListenTCP func(ctx context.Context, addr netip.AddrPort) (*net.TCPListener, error)
	ListenUDP func(ctx context.Context, addr netip.AddrPort) (*net.UDPConn, error)
	// DialTimeouts are how long to wait for an endpoint, and for the next one, and so on: kube-proxy's 250 ms, 500 ms, 1 s, 2 s.
	DialTimeouts []time.Duration
	// UDPIdle ends a UDP session without datagrams, 30 s when zero (nf_conntrack_udp_timeout).
	UDPIdle time.Duration
	// MaxFiles is how many file descriptors the relay may use; 0 is the process's limit (RLIMIT_NOFILE) less some for the rest of it.
	MaxFiles int
}

// Relay holds the listeners. Its methods may be called from several goroutines.
type Relay struct {
	Options
	ctx    context.Context
	cancel context.CancelFunc
	limit  *limit
	conns  table
	stats  counters
	pipes  pipePool
	linger linger
	bulks  atomic.Int64 // bulk transfers without a pipe

	mu        sync.Mutex // guards listeners and serializes Apply
	listeners map[string]*listener
	closed    bool
}

// listener is one open port.
type listener struct {
	want     netstate.Listener // with the port held
	balance  *balancer
	close    func()        // stops listening; sessions go on
	endpoint func(removed) // tells sessions that endpoints changed, nil for TCP
	sessions func() int    // how many it has, nil for TCP, whose sessions do not need it
	drain    drained
}

// removed reports whether an endpoint is no more.
type removed func(netip.AddrPort) bool

// New returns a Relay without listeners.
func New(o Options) *Relay {
	if o.Log == nil {
		o.Log = slog.Default()
	}
	if o.Dial == nil {
		o.Dial = dial
	}
	if o.ListenTCP == nil {
		o.ListenTCP = listenTCP
	}
	if o.ListenUDP == nil {
		o.ListenUDP = listenUDP
	}
	if len(o.DialTimeouts) == 0 {
		o.DialTimeouts = []time.Duration{250 * time.Millisecond, 500 * time.Millisecond, time.Second, 2 * time.Second}
	}
	o.UDPIdle = cmp.Or(o.UDPIdle, 30*time.Second)
	r := &Relay{Options: o, listeners: map[string]*listener{}}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	r.limit = newLimit(o.MaxFiles, o.Log, &r.stats)
	r.pipes.limit = r.limit
	return r
}

// Apply opens the listeners that are wanted and not open, closes those that are not wanted, and gives the others their new endpoints.
// Port 0 is any port: an open listener keeps the one it has. A wanted port that someone else holds is replaced by another, unless
// it is fixed. The answer
// is the port of every open listener by its key; the error names each that could not be opened, the others are open all the same.
// One that is to drain and has no session is not among them.
func (r *Relay) Apply(want []netstate.Listener) (map[string]uint16, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil, errors.New("apply listeners: the relay is closed")
	}
	keep := make(map[string]bool, len(want))
	for _, w := range want {
		keep[w.Key()] = true
	}
	for key, l := range r.listeners {
		if !keep[key] {
			r.drop(key, l)
		}
	}
	r.limit.reserve(2 * len(want))
	var errs []error
	for _, w := range want {
		if err := r.apply(w); err != nil {
			errs = append(errs, fmt.Errorf("open listener for %s: %w", w.Key(), err))
		}
	}
	return r.ports(), errors.Join(errs...)
}

func (r *Relay) drop(key string, l *listener) {
	l.close()
	if l.endpoint != nil {
		l.endpoint(func(netip.AddrPort) bool { return true })
	}
	delete(r.listeners, key)
}

// apply brings one listener into the wanted state.
func (r *Relay) apply(w netstate.Listener) error {
	key := w.Key()
	l := r.listeners[key]
	if w.Drain {
		r.applyDrain(l, w)
		return nil
	}
	if l != nil && (w.Addr.Addr() != l.want.Addr.Addr() || w.Addr.Port() != 0 && w.Addr.Port() != l.want.Addr.Port()) {
		r.drop(key, l)
		l = nil
	}
	if l == nil {
		balance := newBalancer(w)
		l, err := r.open(w, balance)
		if err != nil {
			return err
		}
		r.listeners[key] = l
		return nil
	}
	l.drain = drained{}
	l.update(w)
	return nil
}

// applyDrain gives an open listener its endpoints for as long as it is needed.
func (r *Relay) applyDrain(l *listener, w netstate.Listener) {
	switch {
	case l == nil:
	case l.drains(time.Now(), r.linger):
		l.update(w)
	default:
		r.drop(w.Key(), l)
	}
}

// update changes what sessions of the listener are sent to.
func (l *listener) update(w netstate.Listener) {
	w.Addr = l.want.Addr
	l.want = w
	l.balance.set(w)
	if l.endpoint != nil {
		l.endpoint(func(e netip.AddrPort) bool { return !slices.Contains(w.Endpoints, e) })
	}
}

// open opens a listener, on any port when the wanted one is taken.
func (r *Relay) open(w netstate.Listener, b *balancer) (*listener, error) {
	if !w.Addr.IsValid() {
		return nil, errors.New("it has no address: want an address and a port, [::]:0 for any")
	}
	open := r.openTCP
	switch w.Protocol {
	case "TCP":
	case "UDP":
		open = r.openUDP
	default:
		return nil, fmt.Errorf("protocol %q: the relay knows TCP and UDP", w.Protocol)
	}
	l, err := open(w, b)
	if errors.Is(err, syscall.EADDRINUSE) && w.Addr.Port() != 0 && !w.Fixed {
		taken := w.Addr.Port()
		w.Addr = netip.AddrPortFrom(w.Addr.Addr(), 0)
		if l, err = open(w, b); err == nil {
			r.Log.Warn("port of a service's listener is taken by another program, using another", "service", w.Service,
				"protocol", w.Protocol, "taken", taken, "port", l.want.Addr.Port())
		}
	}
	return l, err
}

// Ports returns the port of every open listener by its key.
func (r *Relay) Ports() map[string]uint16 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.ports()
}

func (r *Relay) ports() map[string]uint16 {
	out := make(map[string]uint16, len(r.listeners))
	for key, l := range r.listeners {
		if l.drain.idle.IsZero() {
			out[key] = l.want.Addr.Port()
		}
	}
	return out
}

// State returns the open listeners with the ports they hold.
func (r *Relay) State() netstate.State {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := netstate.New()
	for _, l := range r.listeners {
		s.Add(l.want)
	}
	return s
}

// Close closes all listeners and sessions.
func (r *Relay) Close() error {
	r.mu.Lock()
	r.closed = true
	for _, key := range slices.Collect(maps.Keys(r.listeners)) {
		r.drop(key, r.listeners[key])
	}
	r.mu.Unlock()
	r.cancel()
	r.conns.closeAll()
	r.conns.wait()
	r.pipes.close()
	return nil
}

// dial uses the address the kernel chooses: that of the device the endpoint is reached by.
func dial(ctx context.Context, network string, to netip.AddrPort) (net.Conn, error) {
	var d net.Dialer
	if network == "udp" {
		return d.DialUDP(ctx, network, netip.AddrPort{}, to)
	}
	return d.DialTCP(ctx, network, netip.AddrPort{}, to)
}

// noIPv6 reports whether a wildcard address failed because the host has no IPv6.
func noIPv6(addr netip.AddrPort, err error) bool {
	return addr.Addr() == netip.IPv6Unspecified() && (errors.Is(err, syscall.EAFNOSUPPORT) || errors.Is(err, syscall.EADDRNOTAVAIL))
}

func anyIPv4(addr netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(netip.IPv4Unspecified(), addr.Port())
}

func listenTCP(ctx context.Context, addr netip.AddrPort) (*net.TCPListener, error) {
	var c net.ListenConfig
	l, err := c.Listen(ctx, "tcp", addr.String())
	if noIPv6(addr, err) {
		l, err = c.Listen(ctx, "tcp4", anyIPv4(addr).String())
	}
	if err != nil {
		return nil, plainError(err)
	}
	return l.(*net.TCPListener), nil
}

func listenUDP(ctx context.Context, addr netip.AddrPort) (*net.UDPConn, error) {
	c := net.ListenConfig{Control: wantLocalAddress}
	l, err := c.ListenPacket(ctx, "udp", addr.String())
	if noIPv6(addr, err) {
		l, err = c.ListenPacket(ctx, "udp4", anyIPv4(addr).String())
	}
	if err != nil {
		return nil, plainError(err)
	}
	return l.(*net.UDPConn), nil
}

// plainError takes the port out of the text "listen tcp [::]:0: ...", which says nothing, and keeps the cause.
func plainError(err error) error {
	var op *net.OpError
	if errors.As(err, &op) && strings.HasPrefix(op.Op, "listen") {
		return fmt.Errorf("listen on %s: %w", op.Addr, op.Err)
	}
	return err
}
