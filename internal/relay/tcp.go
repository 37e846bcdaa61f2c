package relay

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"weft/internal/netstate"
)

// filesTCP are the descriptors of a TCP session: two sockets.
const filesTCP = 2

// acceptRetry is how long accepting pauses when the kernel can't accept.
const acceptRetry = 100 * time.Millisecond

// tcpListener accepts the connections of one service port.
type tcpListener struct {
	relay   *Relay
	service string
	socket  *net.TCPListener
	balance *balancer
	done    context.Context
}

func (r *Relay) openTCP(w netstate.Listener, b *balancer) (*listener, error) {
	socket, err := r.ListenTCP(r.ctx, w.Addr)
	if err != nil {
		return nil, err
	}
	w.Addr = netip.AddrPortFrom(w.Addr.Addr(), addrPort(socket.Addr()).Port())
	done, cancel := context.WithCancel(r.ctx)
	l := &tcpListener{relay: r, service: w.Service, socket: socket, balance: b, done: done}
	r.conns.done.Go(l.serve)
	return &listener{want: w, balance: b, close: func() { cancel(); _ = socket.Close() }}, nil
}

// serve accepts until the listener is closed.
func (l *tcpListener) serve() {
	for {
		c, err := l.socket.AcceptTCP()
		if err != nil {
			if l.done.Err() != nil || errors.Is(err, net.ErrClosed) {
				return
			}
			l.pause(err)
			continue
		}
		if !l.relay.limit.acquire(filesTCP, l.done.Done()) {
			_ = c.Close()
			return
		}
		l.relay.stats.accepted.Add(1)
		l.relay.conns.done.Go(func() {
			defer l.relay.limit.release(filesTCP)
			l.session(c)
		})
	}
}

// pause reports what keeps the kernel from accepting and waits a little, so as not to spin.
func (l *tcpListener) pause(err error) {
	if isAny(err, outOfFiles) {
		l.relay.limit.exhausted()
	} else {
		l.relay.Log.Error("accept connection", "service", l.service, "err", err)
	}
	t := time.NewTimer(acceptRetry)
	defer t.Stop()
	select {
	case <-t.C:
	case <-l.done.Done():
	}
}

// tcpSession is one relayed connection.
type tcpSession struct {
	Connection
	client, upstream *net.TCPConn
}

func (s *tcpSession) describe() Connection {
	c := s.Connection
	if o := originalDst(s.client, c.Client.Addr().Is6()); o != c.Local {
		c.Original = o
	}
	return c
}

func (s *tcpSession) abort() {
	reset(s.client)
	reset(s.upstream)
}

// session connects to an endpoint and copies both ways until both ends have closed.
func (l *tcpListener) session(client *net.TCPConn) {
	s := &tcpSession{client: client, Connection: Connection{
		Service: l.service, Protocol: "TCP", Client: addrPort(client.RemoteAddr()), Local: addrPort(client.LocalAddr()), Since: time.Now(),
	}}
	up, endpoint, err := l.connect(s.Client.Addr())
	if err != nil {
		l.relay.stats.refused.Add(1)
		l.relay.Log.Debug("no endpoint takes the connection", "service", l.service, "client", s.Client, "err", err)
		reset(client) // the client sees a refusal, as from the endpoint itself
		return
	}
	defer l.balance.release(endpoint)
	s.upstream, s.Upstream, s.Endpoint = up, addrPort(up.LocalAddr()), endpoint
	l.relay.conns.add(s)
	defer l.relay.conns.remove(s)
	if l.relay.ctx.Err() != nil { // closed while the session was not in the table yet
		s.abort()
		return
	}
	l.relay.join(client, up)
}

var errNoEndpoint = errors.New("the service has no endpoint")

// connect tries endpoints until one accepts. One that refuses is not tried again; the time to wait for an answer grows each time one
// doesn't come, and those that didn't answer are tried again as long as there is time left.
func (l *tcpListener) connect(client netip.Addr) (*net.TCPConn, netip.AddrPort, error) {
	var tried, silent []netip.AddrPort
	last := errNoEndpoint
	timeouts := l.relay.DialTimeouts
	for len(timeouts) > 0 && l.relay.ctx.Err() == nil {
		e, ok := l.balance.pick(client, tried)
		if !ok {
			if len(silent) == 0 {
				break
			}
			tried = slices.DeleteFunc(tried, func(e netip.AddrPort) bool { return slices.Contains(silent, e) })
			silent = nil
			continue
		}
		c, err := l.dial(e, timeouts[0])
		if err == nil {
			l.balance.used(client, e)
			return c, e, nil
		}
		l.balance.release(e)
		last = fmt.Errorf("connect to %s: %w", e, err)
		if isAny(err, outOfFiles) {
			l.relay.limit.exhausted()
			break
		}
		l.relay.stats.retries.Add(1)
		l.balance.failed(e)
		tried = append(tried, e)
		if errors.Is(err, context.DeadlineExceeded) || isTimeout(err) {
			silent = append(silent, e)
			timeouts = timeouts[1:]
		}
	}
	return nil, netip.AddrPort{}, last
}

func (l *tcpListener) dial(e netip.AddrPort, timeout time.Duration) (*net.TCPConn, error) {
	ctx, cancel := context.WithTimeout(l.relay.ctx, timeout)
	defer cancel()
	c, err := l.relay.Dial(ctx, "tcp", e)
	if err != nil {
		return nil, err
	}
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		_ = c.Close()
		return nil, fmt.Errorf("dialed a %T, want a TCP connection", c)
	}
	return tcp, nil
}

func isTimeout(err error) bool {
	var t interface{ Timeout() bool }
	return errors.As(err, &t) && t.Timeout()
}

func isAny(err error, list []error) bool {
	return slices.ContainsFunc(list, func(e error) bool { return errors.Is(err, e) })
}

// addrPort is a socket address without the IPv4-in-IPv6 form that dual-stack sockets give it.
func addrPort(a net.Addr) netip.AddrPort {
	var p netip.AddrPort
	switch a := a.(type) {
	case *net.TCPAddr:
		p = a.AddrPort()
	case *net.UDPAddr:
		p = a.AddrPort()
	}
	return netip.AddrPortFrom(p.Addr().Unmap(), p.Port())
}

// reset closes a connection with RST.
func reset(c *net.TCPConn) {
	_ = c.SetLinger(0) // fails only when it's closed already
	_ = c.Close()
}
