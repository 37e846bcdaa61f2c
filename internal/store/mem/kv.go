package mem

import (
	"context"

	"weft/internal/lease/claim"
)

// SetDown makes everything fail with ErrDown, or work again. Watches end.
func (s *Store) SetDown(down bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down = down
	s.wake()
}

// SetSilent makes the store stop answering without a word, as a host that lost its power does, or work again.
func (s *Store) SetSilent(silent bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.silent = silent
	s.wake()
}

// ready waits while the store is silent.
func (s *Store) ready(ctx context.Context) error {
	for {
		s.mu.Lock()
		down, silent, changed := s.down, s.silent, s.changed
		s.mu.Unlock()
		if !silent && down {
			return ErrDown
		}
		if !silent {
			return ctx.Err()
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
}

// List is Snapshot for a Keeper.
func (s *Store) List(ctx context.Context) (claim.Snapshot, error) {
	if err := s.ready(ctx); err != nil {
		return claim.Snapshot{}, err
	}
	return s.Snapshot(), nil
}

// Watch sends the changes after a revision until ctx ends, the store goes down or the changes are not known any more.
func (s *Store) Watch(ctx context.Context, rev int64, to func(claim.Batch)) error {
	for {
		if err := s.ready(ctx); err != nil {
			return err
		}
		unlock := s.lock()
		batches, err := s.since(rev)
		changed := s.changed
		unlock()
		if err != nil {
			return err
		}
		for _, b := range batches {
			to(b)
			rev = b.Revision
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
}

// Do is Exec for a Keeper.
func (s *Store) Do(ctx context.Context, a claim.Action) claim.Outcome {
	sent := s.now()
	if err := s.ready(ctx); err != nil {
		return claim.Outcome{Result: claim.Unknown, Err: err, Sent: sent}
	}
	return s.Exec(a)
}

// Check returns the present revision and the identity of the store.
func (s *Store) Check(ctx context.Context) (int64, uint64, error) {
	if err := s.ready(ctx); err != nil {
		return 0, 0, err
	}
	defer s.lock()()
	return s.rev, s.cluster, nil
}
