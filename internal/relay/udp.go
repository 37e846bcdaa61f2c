package relay

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"weft/internal/netstate"
)

// maxDatagram is the largest UDP payload, over IPv4 and IPv6.
const maxDatagram = 65535

// maxTries bounds the sessions one datagram is tried with.
const maxTries = 8

// datagrams are buffers for one datagram each, held only while there is one in them.
var datagrams = sync.Pool{New: func() any { b := make([]byte, maxDatagram); return &b }}

// udpListener receives the datagrams of one service port.
type udpListener struct {
	relay   *Relay
	service string
	socket  *net.UDPConn
	raw     syscall.RawConn
	balance *balancer
	done    context.Context

	mu       sync.Mutex
	sessions map[udpKey]*udpSession
}

// udpKey tells sessions apart: who sent to which of our addresses.
type udpKey struct {
	client netip.AddrPort
	local  netip.Addr
}

// udpSession is a client's datagrams to one endpoint, and the answers.
type udpSession struct {
	listener *udpListener
	key      udpKey
	endpoint netip.AddrPort
	upstream *net.UDPConn
	since    time.Time
	last     atomic.Int64 // last datagram either way, Unix nanoseconds
}

func (r *Relay) openUDP(w netstate.Listener, b *balancer) (*listener, error) {
	socket, err := r.ListenUDP(r.ctx, w.Addr)
	if err != nil {
		return nil, err
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		_ = socket.Close()
		return nil, err
	}
	w.Addr = netip.AddrPortFrom(w.Addr.Addr(), addrPort(socket.LocalAddr()).Port())
	done, cancel := context.WithCancel(r.ctx)
	l := &udpListener{
		relay: r, service: w.Service, socket: socket, raw: raw, balance: b, done: done, sessions: map[udpKey]*udpSession{},
	}
	r.conns.done.Go(l.serve)
	return &listener{want: w, balance: b, close: func() { cancel(); _ = socket.Close() }, endpoint: l.end, sessions: l.count}, nil
}

// end ends the sessions with endpoints that are gone.
func (l *udpListener) end(gone removed) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.sessions {
		if gone(s.endpoint) {
			s.abort()
		}
	}
}

// count is the number of sessions.
func (l *udpListener) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.sessions)
}

// serve receives until the listener is closed.
func (l *udpListener) serve() {
	for {
		m, err := receive(l.raw)
		if err != nil {
			if l.done.Err() != nil || errors.Is(err, net.ErrClosed) {
				return
			}
			continue // an ICMP error for an answer to a client that is gone
		}
		l.forward(m)
		datagrams.Put(m.buf)
	}
}

// forward passes a datagram to the session's endpoint. When that refused an earlier one, the session starts again with another.
func (l *udpListener) forward(m datagram) {
	key := udpKey{m.from, m.to}
	var tried []netip.AddrPort
	for range maxTries {
		s, e, err := l.session(key, tried)
		if err != nil && e.IsValid() { // no way to this endpoint
			l.relay.stats.retries.Add(1)
			l.balance.failed(e)
			tried = append(tried, e)
			continue
		}
		if err != nil {
			l.relay.stats.lost.Add(1)
			return
		}
		s.last.Store(time.Now().UnixNano())
		_, err = s.upstream.Write((*m.buf)[:m.n])
		if err == nil {
			l.relay.stats.datagrams.Add(1)
			return
		}
		l.drop(s)
		if !errors.Is(err, syscall.ECONNREFUSED) && !errors.Is(err, net.ErrClosed) && !errors.Is(err, syscall.EHOSTUNREACH) {
			l.relay.stats.lost.Add(1)
			return
		}
		if !errors.Is(err, net.ErrClosed) {
			l.relay.stats.retries.Add(1)
			l.balance.failed(s.endpoint)
			tried = append(tried, s.endpoint)
		}
	}
	l.relay.stats.lost.Add(1)
}

// session returns the client's session, a new one where there is none. When the endpoint chosen for it can't be reached it is returned with
// the error.
func (l *udpListener) session(key udpKey, tried []netip.AddrPort) (*udpSession, netip.AddrPort, error) {
	l.mu.Lock()
	s := l.sessions[key]
	l.mu.Unlock()
	if s != nil {
		return s, s.endpoint, nil
	}
	e, ok := l.balance.pick(key.client.Addr(), tried)
	if !ok {
		return nil, netip.AddrPort{}, errNoEndpoint
	}
	if !l.relay.limit.try(1) {
		l.balance.release(e)
		return nil, netip.AddrPort{}, syscall.EMFILE
	}
	c, err := l.dial(e)
	if err != nil {
		l.balance.release(e)
		l.relay.limit.release(1)
		if isAny(err, outOfFiles) {
			e = netip.AddrPort{}
		}
		return nil, e, err
	}
	l.balance.used(key.client.Addr(), e)
	l.relay.stats.accepted.Add(1)
	s = &udpSession{listener: l, key: key, endpoint: e, upstream: c, since: time.Now()}
	s.last.Store(s.since.UnixNano())
	l.mu.Lock()
	l.sessions[key] = s
	l.mu.Unlock()
	l.relay.conns.add(s)
	l.relay.conns.done.Go(s.answer)
	// Closed meanwhile, or the endpoint went between its choice and now: nobody else ends this session.
	if l.done.Err() != nil || !l.balance.has(e) {
		s.abort()
	}
	return s, e, nil
}

func (l *udpListener) dial(e netip.AddrPort) (*net.UDPConn, error) {
	ctx, cancel := context.WithTimeout(l.relay.ctx, time.Second)
	defer cancel()
	c, err := l.relay.Dial(ctx, "udp", e)
	if err != nil {
		if isAny(err, outOfFiles) {
			l.relay.limit.exhausted()
		}
		return nil, err
	}
	u, ok := c.(*net.UDPConn)
	if !ok {
		_ = c.Close()
		return nil, errors.New("dialed something else than a UDP socket")
	}
	return u, nil
}

// drop takes a session out of the listener, so that the client's next datagram starts another.
func (l *udpListener) drop(s *udpSession) {
	l.mu.Lock()
	if l.sessions[s.key] == s {
		delete(l.sessions, s.key)
	}
	l.mu.Unlock()
	s.abort()
}

func (s *udpSession) abort() { _ = s.upstream.Close() }

func (s *udpSession) describe() Connection {
	return Connection{
		Service: s.listener.service, Protocol: "UDP", Client: s.key.client, Upstream: addrPort(s.upstream.LocalAddr()), Endpoint: s.endpoint,
		Local: netip.AddrPortFrom(s.key.local, addrPort(s.listener.socket.LocalAddr()).Port()), Since: s.since,
	}
}

// answer passes the endpoint's datagrams back to the client until the session is idle or ended.
func (s *udpSession) answer() {
	l := s.listener
	defer func() {
		l.drop(s)
		l.relay.conns.remove(s)
		l.relay.limit.release(1)
		l.balance.release(s.endpoint)
	}()
	raw, err := s.upstream.SyscallConn()
	if err != nil {
		return
	}
	control := sourceControl(s.key.local)
	for {
		idle := time.Unix(0, s.last.Load()).Add(l.relay.UDPIdle)
		if err := s.upstream.SetReadDeadline(idle); err != nil {
			return
		}
		m, err := receive(raw)
		switch {
		case err == nil:
		case isTimeout(err) && time.Since(time.Unix(0, s.last.Load())) < l.relay.UDPIdle:
			continue // the client sent something meanwhile
		case errors.Is(err, unix.ECONNREFUSED):
			l.balance.failed(s.endpoint)
			return
		default:
			return
		}
		s.last.Store(time.Now().UnixNano())
		_, _, err = l.socket.WriteMsgUDPAddrPort((*m.buf)[:m.n], control, s.key.client)
		datagrams.Put(m.buf)
		if err != nil {
			l.relay.stats.lost.Add(1)
		} else {
			l.relay.stats.datagrams.Add(1)
		}
	}
}
