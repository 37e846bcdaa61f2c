package syncs

import "time"

// Patience is how long the rules may be behind the services before load balancers are told so: kube-proxy's, twice its period of 30 s.
const Patience = time.Minute

// Begin notes that a step begins: from now on the rules may be behind.
func (s *Syncs) Begin(at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.behind.IsZero() {
		s.behind = at
	}
}

// InForce notes that the rules are as planned, but for single objects that the kernel refuses: the service they are of is named elsewhere, and is
// no reason to send clients of all others to other nodes.
func (s *Syncs) InForce() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.behind = time.Time{}
}

// Healthy reports whether new connections to services are in good hands here: the rules are not behind for longer than Patience, be it that
// steps fail or that one does not end. Before the first step they are.
func (s *Syncs) Healthy(now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.behind.IsZero() || now.Sub(s.behind) < Patience
}
