// Package attachments remembers which pod of the node has which address.
//
// Floor 4, programs.
package attachments

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"

	"weft/internal/agent/rundir"
	"weft/internal/attach"
	"weft/internal/ipam"
)

// Book remembers which pod has which address, in a file that is replaced whole: an agent that is killed finds its
// pods' addresses again, and never gives one out twice.
type Book struct {
	mu   sync.Mutex
	file string
	data attachmentData
}

type attachmentData struct {
	Last netip.Addr            `json:"last"` // the address given out last: the search goes on after it
	Pods map[string]attach.Pod `json:"pods"` // by UID
}

// Open reads the file, or begins anew when there is none.
func Open(file string) (*Book, error) {
	a := &Book{file: file, data: attachmentData{Pods: map[string]attach.Pod{}}}
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return a, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read attachments: %w", err)
	}
	if err := json.Unmarshal(text, &a.data); err != nil {
		return nil, fmt.Errorf("read attachments: %s: %w: move the file away when no pod of this node runs", file, err)
	}
	if a.data.Pods == nil {
		a.data.Pods = map[string]attach.Pod{}
	}
	return a, nil
}

// Add gives the pod an address of each subnet, or the ones it has when they still lie in the subnets.
func (a *Book) Add(p attach.Pod, subnets ...netip.Prefix) (attach.Pod, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	old, known := a.data.Pods[p.UID]
	if known && old.Netns == p.Netns && Within(old.IPs, subnets) {
		return old, nil
	}
	used := map[netip.Addr]bool{}
	for uid, other := range a.data.Pods {
		for _, ip := range other.IPs {
			used[ip] = uid != p.UID
		}
	}
	p.IPs = nil
	if known && Within(old.IPs, subnets) {
		p.IPs = old.IPs
	}
	last := a.data.Last
	for _, subnet := range subnets {
		if len(p.IPs) >= len(subnets) || !subnet.IsValid() {
			continue
		}
		ip, err := ipam.Next(subnet, last, used)
		if err != nil {
			return p, fmt.Errorf("address for %s/%s: %w", p.Namespace, p.Name, err)
		}
		p.IPs = append(p.IPs, ip)
	}
	next := a.copy()
	next.Pods[p.UID] = p
	if len(p.IPs) > 0 {
		next.Last = p.IPs[0]
	}
	return p, a.replace(next)
}

// Within reports whether every address lies in one of the subnets and there is one for each.
func Within(ips []netip.Addr, subnets []netip.Prefix) bool {
	n := 0
	for _, s := range subnets {
		if s.IsValid() {
			n++
		}
	}
	return len(ips) == n && !slices.ContainsFunc(ips, func(ip netip.Addr) bool {
		return !slices.ContainsFunc(subnets, func(s netip.Prefix) bool { return s.Contains(ip) })
	})
}

// Remove gives the pod's addresses back; it reports whether there were any.
func (a *Book) Remove(uid string) (bool, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if _, ok := a.data.Pods[uid]; !ok {
		return false, nil
	}
	next := a.copy()
	delete(next.Pods, uid)
	return true, a.replace(next)
}

// List returns the attached pods in order of name.
func (a *Book) List() []attach.Pod {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := make([]attach.Pod, 0, len(a.data.Pods))
	for _, p := range a.data.Pods {
		out = append(out, p)
	}
	slices.SortFunc(out, func(x, y attach.Pod) int { return strings.Compare(x.Namespace+x.Name+x.UID, y.Namespace+y.Name+y.UID) })
	return out
}

func (a *Book) copy() attachmentData {
	next := attachmentData{Last: a.data.Last, Pods: make(map[string]attach.Pod, len(a.data.Pods)+1)}
	maps.Copy(next.Pods, a.data.Pods)
	return next
}

// replace writes the file and, when that worked, takes the data.
func (a *Book) replace(next attachmentData) error {
	text, err := json.MarshalIndent(next, "", " ")
	if err != nil {
		return fmt.Errorf("write attachments: %w", err)
	}
	if err := rundir.WriteFile(a.file, text, 0o600); err != nil {
		return fmt.Errorf("write attachments: %w", err)
	}
	a.data = next
	return nil
}
