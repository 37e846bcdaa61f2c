package relay_test

import (
	"io"
	"net"
	"testing"

	"weft/internal/api"
)

// BenchmarkService compares pod to pod with pod to service in mode userspace, on one node: bridge and veth against redirect and relay.
func BenchmarkService(b *testing.B) {
	h := newHost(b)
	if err := h.nginx.Do(func() error { return swallowAll(b) }); err != nil {
		b.Fatal(err)
	}
	h.sync([]api.ServicePort{h.service(api.TCP)})
	for _, to := range [][2]string{{"direct", "172.16.28.9:80"}, {"service", "10.254.247.121:8080"}} {
		b.Run("connect/"+to[0], func(b *testing.B) {
			one := []byte{1}
			err := h.sshd.Do(func() error {
				for b.Loop() {
					c, err := net.Dial("tcp", to[1])
					if err != nil {
						return err
					}
					if _, err := c.Write(one); err != nil {
						return err
					}
					if _, err := io.ReadFull(c, one); err != nil {
						return err
					}
					_ = c.(*net.TCPConn).SetLinger(0) // no TIME_WAIT: the ports would run out
					_ = c.Close()
				}
				return nil
			})
			if err != nil {
				b.Fatal(err)
			}
		})
	}
	for _, to := range [][2]string{{"direct", "172.16.28.9:80"}, {"service", "10.254.247.121:8080"}} {
		b.Run("bulk/"+to[0], func(b *testing.B) {
			var c net.Conn
			err := h.sshd.Do(func() (err error) { c, err = net.Dial("tcp", to[1]); return err })
			if err != nil {
				b.Fatal(err)
			}
			defer c.Close()
			buf := make([]byte, 256<<10)
			b.SetBytes(int64(len(buf)))
			for b.Loop() {
				if _, err := c.Write(buf); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// swallow reads everything and answers single bytes.
func swallow(c net.Conn) {
	defer c.Close()
	buf := make([]byte, 256<<10)
	for {
		n, err := c.Read(buf)
		if err != nil {
			return
		}
		if n == 1 {
			_, _ = c.Write(buf[:1])
		}
	}
}
