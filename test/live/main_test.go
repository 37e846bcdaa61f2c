package live

import (
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"weft/internal/lab"
	"weft/internal/lab/topology"
	"weft/test/labtest"
)

const (
	master = labtest.Master
	node1  = labtest.Node1
	node2  = labtest.Node2
)

func TestMain(m *testing.M) { os.Exit(labtest.Main(m, nil, "weft-server", "kubectl")) }

// cluster is a lab with programs.
type cluster struct {
	*labtest.Cluster
	still *labtest.Still
}

func up(t *testing.T, top topology.Topology) *cluster {
	t.Helper()
	return &cluster{labtest.Up(t, "live", top, lab.Options{}), labtest.NewStill(t)}
}

// repair runs a command on a host and measures there how long it takes until a check holds, which must not hold right after the command
// if the agent does nothing. Both are one shell's work, so that the way to the host is not measured.
func (c *cluster) repair(host, injure, check string, limit time.Duration) time.Duration {
	c.T.Helper()
	out, err := c.Sh(host, fmt.Sprintf(`(%s) >/dev/null 2>&1 || { echo the injury failed; exit 1; }
a=$(date +%%s%%N)
while :; do
  if (%s) >/dev/null 2>&1; then b=$(date +%%s%%N); echo $(((b-a)/1000)); exit; fi
  b=$(date +%%s%%N); [ $(((b-a)/1000000)) -gt %d ] && { echo not repaired; exit 1; }
done`, injure, check, limit.Milliseconds()))
	if err != nil {
		c.T.Errorf("%s: %s: %v %s", host, injure, err, out)
		return limit
	}
	us, err := strconv.Atoi(out)
	if err != nil {
		c.T.Fatal(err)
	}
	return time.Duration(us) * time.Microsecond
}

// nexthop is what "ip route" tells of the next hop object of a route; the gateway follows.
var nexthop = regexp.MustCompile(`nhid \d+ `)

// routes is Says for routes, whose next hop objects are of no interest.
func (c *cluster) routes(host, command string, want ...string) func() error {
	return func() error {
		out, err := c.Sh(host, command)
		if err != nil {
			return err
		}
		out = nexthop.ReplaceAllString(out, "")
		for _, w := range want {
			if !strings.Contains(out, w) {
				return fmt.Errorf("no %s in:\n%s", w, out)
			}
		}
		return nil
	}
}
