package etcd

import (
	"context"
	"errors"
	"strings"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// tokenGone is what a request is answered with when etcd does not know the user's token any more: it ran out, or etcd was restarted.
// The client would ask for another one with the old one in its hand, which servers up to 3.4 refuse again and again; so the connection
// is made anew.
var tokenGone = status.Error(codes.Aborted, "the user's token ran out")

// noticeToken makes etcd's word about a token that is not known tokenGone.
func noticeToken(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	err := invoke(ctx, method, req, reply, cc, opts...)
	if errors.Is(rpctypes.Error(err), rpctypes.ErrInvalidAuthToken) {
		return tokenGone
	}
	return err
}

func isTokenGone(err error) bool {
	return err != nil && (status.Code(err) == codes.Aborted || strings.Contains(err.Error(), "token ran out"))
}
