package facts

import (
	"reflect"
	"sync"

	"weft/internal/agent/loop"
	"weft/internal/api"
)

// Setting is what a node's plans depend on besides the cluster's objects. It is a value: its slices are not changed.
type Setting struct {
	Facts
	Announced api.Lease // what the node announces of itself, without its subnets, when all it names is open
	PSK       string    // of backend wireguard, base64; a secret
}

// Own is the node's lease as it is to be: what the store holds may still be announced under an older setting.
func (s Setting) Own(stored api.Lease) api.Lease {
	if s.Announced.Node == "" {
		return stored
	}
	l := s.Announced
	l.Subnet, l.SubnetV6, l.Expiry = stored.Subnet, stored.SubnetV6, stored.Expiry
	return l
}

// InForce holds the setting in force. Loops read it in each step.
type InForce struct {
	mu   sync.Mutex
	now  Setting
	gen  uint64 // counts the settings
	subs []chan struct{}
}

// Get returns the setting in force.
func (s *InForce) Get() Setting {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now
}

// Generation is another one after each change.
func (s *InForce) Generation() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.gen
}

// Facts are those of the setting in force.
func (s *InForce) Facts() Facts { return s.Get().Facts }

// Set puts a setting in force and wakes those who depend on it. It reports whether it is another one.
func (s *InForce) Set(next Setting) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if reflect.DeepEqual(s.now, next) {
		return false
	}
	s.now = next
	s.gen++
	for _, ch := range s.subs {
		loop.Poke(ch)
	}
	return true
}

// Wake makes the loops step though nothing changed: what failed may work now.
func (s *InForce) Wake() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, ch := range s.subs {
		loop.Poke(ch)
	}
}

// Subscribe returns a channel that receives after the setting changed.
func (s *InForce) Subscribe() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	ch := make(chan struct{}, 1)
	s.subs = append(s.subs, ch)
	return ch
}
