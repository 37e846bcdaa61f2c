package interop

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"weft/internal/lab"
)

// pagePath is the page whose command lines the tests run.
const pagePath = "../../docs/migration/from-flannel.md"

var step = regexp.MustCompile("(?m)^<!-- run: (\\S+) -->\n+```sh\n((?s:.*?))^```\n")

// page returns the page's blocks of command lines by name.
func page(t *testing.T) map[string]string {
	t.Helper()
	text, err := os.ReadFile(pagePath)
	if err != nil {
		t.Fatal(err)
	}
	steps := map[string]string{}
	for _, m := range step.FindAllStringSubmatch(string(text), -1) {
		steps[m[1]] = m[2]
	}
	if n := strings.Count(string(text), "<!-- run: "); n != len(steps) || n == 0 {
		t.Fatalf("%s: %d markers, %d named blocks", pagePath, n, len(steps))
	}
	return steps
}

// on is the page's block for a host: its variables set, then the commands.
func (n *network) on(h *host, name string) string {
	n.t.Helper()
	text, ok := page(n.t)[name]
	if !ok {
		n.t.Fatalf("%s has no step %q", pagePath, name)
	}
	return fmt.Sprintf("ETCD=%s PREFIX=%s IFACE=eth0 PUBLIC_IP=%s ADMIN=%s\nexport NODE_NAME=%s\n%s", etcd, n.prefix(), h.addr, kubeconfig, h.name, text)
}

// step runs a block that ends.
func (n *network) step(h *host, name string) string {
	n.t.Helper()
	return h.must("%s", "set -e\n"+n.on(h, name))
}

// start runs a block that is one program, which goes on.
func (n *network) start(h *host, program, name string) {
	n.t.Helper()
	h.run(program, "sh", "-c", strings.Replace(n.on(h, name), "\n"+program1(program), "\nexec "+program1(program), 1))
}

// program1 is the word with which a program's command line begins.
func program1(program string) string {
	if program == lab.Agent {
		return "weft agent"
	}
	return "flanneld"
}

// mode is the part of a step's name that differs between the stores.
func (n *network) mode() string {
	if n.kube {
		return "kube"
	}
	return "etcd"
}

// takeOver changes a host from flannel to weft by the page's steps.
func (n *network) takeOver(h *host) {
	n.t.Helper()
	h.refuses("weft cleanup --flannel", "flanneld runs here")
	if err := n.Signal(n.t.Context(), h.name, flannel, 9); err != nil {
		n.t.Fatal(err)
	}
	n.start(h, lab.Agent, "agent-"+n.mode())
	n.eventually(h.name+" is taken over", patient, func() error {
		out, err := h.sh("%s", n.on(h, "check"))
		if err == nil && !strings.Contains(out, ": converged") {
			err = fmt.Errorf("%s", out)
		}
		return err
	})
	if !n.lossy {
		n.eventually("flannel's rules are reported", patient, h.says("weft status", "weft cleanup --flannel"))
	}
	n.step(h, "clean-flannel")
	time.Sleep(dwell)
}

// handBack changes a host from weft to flannel.
func (n *network) handBack(h *host) {
	n.t.Helper()
	h.refuses("weft cleanup --keep-network", "another agent runs")
	if err := n.Stop(n.t.Context(), h.name, lab.Agent); err != nil {
		n.t.Fatal(err)
	}
	if n.lossy { // the device must be gone before flanneld makes its own
		n.step(h, "clean-weft")
	}
	began := readyLines(h)
	n.start(h, flannel, "flanneld-"+n.mode())
	n.eventually(h.name+" is flannel's", patient, func() error {
		if readyLines(h) == began {
			return errors.New("flanneld did not say that it is ready")
		}
		return nil
	})
	if !n.lossy {
		n.step(h, "clean-weft")
	}
	time.Sleep(dwell)
}

// dwell is how long the traffic goes on after a change, so that what comes late shows.
const dwell = time.Second

// readyLines counts how often flanneld became ready on the host.
func readyLines(h *host) int {
	log, err := os.ReadFile(h.LogFile(h.name, flannel))
	if err != nil {
		return 0
	}
	return strings.Count(string(log), "flannel is ready")
}

// refuses checks that a command fails and says why.
func (h *host) refuses(command, why string) {
	h.t.Helper()
	if out, err := h.sh("%s", command); err == nil || !strings.Contains(err.Error(), why) {
		h.t.Errorf("%s: %s: %q, %v, want an error with %q", h.name, command, out, err, why)
	}
}
