package lab

import (
	"context"
	"errors"
)

func (l *Lab) startCluster(ctx context.Context, p *progress) error { return errors.ErrUnsupported }
