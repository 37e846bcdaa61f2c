package bench

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"weft/internal/store/etcd/etcdtest"
)

// store is an etcd with leases of one network.
type store struct {
	tb     testing.TB
	server *etcdtest.Server
	client *clientv3.Client
	prefix string
	n      int // leases of others
}

// newStore fills an etcd with n leases.
func newStore(tb testing.TB, n int) *store {
	tb.Helper()
	s := &store{tb: tb, server: etcdtest.Start(tb), prefix: "/bench/network", n: n}
	s.client = s.server.Client()
	s.put(s.prefix+"/config", `{"Network":"10.0.0.0/8","SubnetLen":24,"Backend":{"Type":"vxlan"}}`)
	const batch = 100
	// With a TTL, as hosts write them.
	id := s.lease()
	for i := 0; i < n; i += batch {
		var ops []clientv3.Op
		for j := i; j < min(i+batch, n); j++ {
			key, value := s.entry(j)
			ops = append(ops, clientv3.OpPut(key, value, clientv3.WithLease(id)))
		}
		if _, err := s.client.Txn(context.Background()).Then(ops...).Commit(); err != nil {
			tb.Fatal(err)
		}
	}
	return s
}

func (s *store) lease() clientv3.LeaseID {
	g, err := s.client.Grant(context.Background(), 86400)
	if err != nil {
		s.tb.Fatal(err)
	}
	return g.ID
}

// subnetOf is the subnet of the ith lease. The first 256 of the network stay free for the daemons under test.
func subnetOf(i int) netip.Prefix {
	i += 256
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i)}), 24)
}

// entry is the key and the value of the ith lease, as flannel writes them.
func (s *store) entry(i int) (key, value string) {
	return fmt.Sprintf("%s/subnets/%s-24", s.prefix, subnetOf(i).Addr()), fmt.Sprintf(
		`{"PublicIP":"100.%d.%d.%d","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"02:00:%02x:%02x:%02x:01"}}`,
		64+i>>16, byte(i>>8), byte(i), byte(i>>16), byte(i>>8), byte(i))
}

func (s *store) put(key, value string, opts ...clientv3.OpOption) {
	s.tb.Helper()
	if _, err := s.client.Put(context.Background(), key, value, opts...); err != nil {
		s.tb.Fatal(err)
	}
}

func (s *store) remove(key string) {
	s.tb.Helper()
	if _, err := s.client.Delete(context.Background(), key); err != nil {
		s.tb.Fatal(err)
	}
}

// forget deletes what daemons under test leased.
func (s *store) forget() {
	s.tb.Helper()
	for _, x := range []string{"/subnets/10.0."} {
		if _, err := s.client.Delete(context.Background(), s.prefix+x, clientv3.WithPrefix()); err != nil {
			s.tb.Fatal(err)
		}
	}
}

// far returns a URL by which the store is the delay away, each way.
func (s *store) far(delay time.Duration) string {
	s.tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		s.tb.Fatal(err)
	}
	return s.serve(l, delay)
}

// serve passes connections on to the store.
func (s *store) serve(l net.Listener, delay time.Duration) (url string) {
	s.tb.Cleanup(func() { _ = l.Close() })
	to := strings.TrimPrefix(s.server.URL, "http://")
	url = "http://" + l.Addr().String()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go delayed(c, to, delay)
		}
	}()
	return url
}

// delayed joins a connection with one to the address; every byte arrives the delay after it was sent.
func delayed(c net.Conn, to string, delay time.Duration) {
	defer c.Close()
	d, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	defer d.Close()
	done := make(chan struct{}, 2)
	go func() { late(d, c, delay); done <- struct{}{} }()
	go func() { late(c, d, delay); done <- struct{}{} }()
	<-done
}

type piece struct {
	at   time.Time
	data []byte
}

// late copies, each piece after the delay.
func late(to io.Writer, from io.Reader, delay time.Duration) {
	pieces := make(chan piece, 4096)
	defer close(pieces)
	go func() {
		for p := range pieces {
			time.Sleep(time.Until(p.at))
			if _, err := to.Write(p.data); err != nil {
				return
			}
		}
	}()
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			pieces <- piece{time.Now().Add(delay), append([]byte(nil), buf[:n]...)}
		}
		if err != nil {
			return
		}
	}
}
