package chaos

import (
	"context"
	"net"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
)

// client talks to the etcd of the leases, from outside of the lab.
func (s *story) client() *clientv3.Client {
	c, err := clientv3.New(clientv3.Config{
		Endpoints: []string{"http://172.17.42.40:2379"}, Logger: zap.NewNop(),
		DialOptions: []grpc.DialOption{grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			return s.Dial(ctx, store, "tcp", "127.0.0.1:2379")
		})},
	})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = c.Close() })
	return c
}
