package interop

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"
)

// watched is how long flanneld is given to put back what was deleted.
const watched = 30 * time.Second

// TestHeal takes the same entries away from a flannel and a weft host and prints what each does about it.
func TestHeal(t *testing.T) {
	t.Parallel()
	n := network{name: "heal", conf: `{"Network": "10.23.0.0/16", "Backend": {"Type": "vxlan"}}`}
	n.world = inLab(t)
	n.make()
	f, w := n.take(), n.take()
	n.flannel(f)
	n.weft(w)
	n.withPod(f)
	n.withPod(w)
	n.both(f, w)

	injuries := func(peer *host) [][3]string {
		vtep, addr := peer.subnet.Addr().String(), peer.addr.String()
		return [][3]string{
			{"route", "ip route del " + peer.subnet.String(), "ip route show " + peer.subnet.String() + " | grep flannel.1"},
			{"neighbour", "ip neigh del " + vtep + " dev flannel.1", "ip neigh show " + vtep + " dev flannel.1 nud permanent | grep lladdr"},
			{
				"forwarding entry", "bridge fdb del $(bridge fdb show dev flannel.1 | grep 'dst " + addr + " ' | cut -d' ' -f1) dev flannel.1 dst " + addr,
				"bridge fdb show dev flannel.1 | grep 'dst " + addr + " '",
			},
		}
	}
	var table strings.Builder
	for _, x := range injuries(f) {
		took := w.repair(x[1], x[2])
		fmt.Fprintf(&table, "%-18s weft %8.1f ms\n", x[0], float64(took.Microseconds())/1000)
		if took > watched/10 {
			t.Errorf("weft puts the %s back after %s", x[0], took)
		}
	}
	begun := time.Now()
	for _, x := range injuries(w) {
		f.must("%s", x[1])
	}
	time.Sleep(watched)
	for _, x := range injuries(w) {
		_, err := f.sh("%s", x[2])
		back := "not"
		if err == nil {
			back = "back"
		}
		fmt.Fprintf(&table, "%-18s flannel: %s after %s\n", x[0], back, time.Since(begun).Round(time.Second))
	}
	t.Logf("deleted by hand:\n%s", table.String())
}

// repair runs a command on the host and measures there how long it takes until a check holds.
func (h *host) repair(injure, check string) time.Duration {
	h.t.Helper()
	out := h.must(`%s >/dev/null 2>&1 || { echo the injury failed; exit 1; }
a=$(date +%%s%%N)
while :; do
  if (%s) >/dev/null 2>&1; then b=$(date +%%s%%N); echo $(((b-a)/1000)); exit; fi
  b=$(date +%%s%%N); [ $(((b-a)/1000000)) -gt 20000 ] && { echo not repaired; exit 1; }
done`, injure, check)
	us, err := strconv.Atoi(out)
	if err != nil {
		h.t.Fatal(err)
	}
	return time.Duration(us) * time.Microsecond
}
