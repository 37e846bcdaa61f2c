package agent

import (
	"reflect"
	"sync"

	"weft/internal/agent/loop"
	"weft/internal/api"
)

// setting is what a node's plans depend on besides the cluster's objects. It is a value: its slices are not changed.
type setting struct {
	Facts
	self api.Lease // what the node announces of itself, without its subnets, when all it names is open
	psk  string    // of backend wireguard, base64; a secret
}

// own is the node's lease as it is to be: what the store holds may still be announced under an older setting.
func (s setting) own(stored api.Lease) api.Lease {
	if s.self.Node == "" {
		return stored
	}
	l := s.self
	l.Subnet, l.SubnetV6, l.Expiry = stored.Subnet, stored.SubnetV6, stored.Expiry
	return l
}

// settings holds the setting in force. Loops read it in each step.
type settings struct {
	mu   sync.Mutex
	now  setting
	gen  uint64 // counts the settings
	subs []chan struct{}
}

func (s *settings) get() setting {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now
}

// generation is another one after each change.
func (s *settings) generation() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.gen
}

func (s *settings) facts() Facts { return s.get().Facts }

// set puts a setting in force and wakes those who depend on it. It reports whether it is another one.
func (s *settings) set(next setting) bool {
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

// wake makes the loops step though nothing changed: what failed may work now.
func (s *settings) wake() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, ch := range s.subs {
		loop.Poke(ch)
	}
}

// subscribe returns a channel that receives after the setting changed.
func (s *settings) subscribe() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	ch := make(chan struct{}, 1)
	s.subs = append(s.subs, ch)
	return ch
}
