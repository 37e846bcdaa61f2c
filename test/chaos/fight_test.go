package chaos

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"weft/internal/lab"
)

// fighting is how long the other writer goes on.
const fighting = 4 * time.Second

// routeFight has a hostile writer delete one route every 10 ms. The agent must not spin, must say what happens and by whom, must repair
// other objects as soon as ever, and the route itself when the other has given up.
func (s *story) routeFight() {
	n, resets, begun := s.one(), s.resets(), time.Now()
	route := n.peers[0] + "/24"
	cpu, ops := s.cpu(n), s.ops(n)
	s.must(n.name, fmt.Sprintf("(end=$(($(date +%%s)+%d)); while [ $(date +%%s) -le $end ]; do ip route del %s 2>/dev/null; sleep 0.01; done) >/dev/null 2>&1 &",
		int(fighting.Seconds()), route))
	s.wait(fighting / 2)
	status := s.must(n.name, "weft status")
	if !strings.Contains(status, route) {
		s.t.Errorf("status names no fight for %s: %s", route, status)
	}
	for range 5 {
		since := time.Now()
		s.must(n.name, "ip neigh del "+n.peers[1]+" dev flannel.1")
		s.eventually("another object in a fight", limit, func() error {
			_, err := s.sh(n.name, "ip neigh show dev flannel.1 | grep '^"+n.peers[1]+" .*PERMANENT'")
			return err
		})
		s.table.add("another object during a fight (with two commands in the host)", trial{took: time.Since(since)})
	}
	s.wait(time.Until(begun.Add(fighting + 1500*time.Millisecond)))
	since := time.Now()
	s.during("route deleted every 10 ms for 4 s, from the end", begun, since, resets, true, s.has(route, n))
	used, done := s.cpu(n)-cpu, s.ops(n)-ops
	s.t.Logf("fight of %s: the agent used %s of CPU and did %d operations", fighting, used, done)
	if done > 60 || used > fighting/4 {
		s.t.Errorf("a fight of %s cost %s of CPU and %d operations", fighting, used, done)
	}
	text, err := os.ReadFile(s.LogFile(n.name, lab.Agent))
	if err != nil || !strings.Contains(string(text), "keeps changing route "+route) {
		s.t.Errorf("the log does not name the route: %v", err)
	}
}

// cpu is the agent's processor time so far.
func (s *story) cpu(n *node) time.Duration {
	s.t.Helper()
	fields := strings.Fields(s.must(n.name, "cat /proc/$(pgrep -xo weft)/stat"))
	if len(fields) < 15 {
		s.t.Fatalf("stat: %v", fields)
	}
	user, err1 := strconv.Atoi(fields[13])
	system, err2 := strconv.Atoi(fields[14])
	if err1 != nil || err2 != nil {
		s.t.Fatal(err1, err2)
	}
	return time.Duration(user+system) * 10 * time.Millisecond
}

// ops is how many kernel objects the agent changed so far.
func (s *story) ops(n *node) int {
	s.t.Helper()
	text := s.must(n.name, "curl -s --unix-socket /run/weft/agent.sock http://agent/metrics | grep '^weft_network_ops_total' | cut -d' ' -f2")
	v, err := strconv.ParseFloat(text, 64)
	if err != nil {
		s.t.Fatalf("metrics: %q: %v", text, err)
	}
	return int(v)
}
