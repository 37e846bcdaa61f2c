package modes

import (
	"errors"
	"flag"
	"os"
	"slices"
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

var (
	hosts    = []string{node1, node2}
	switches = flag.Int("switches", 12, "how often each node changes its mode")
)

func TestMain(m *testing.M) {
	os.Exit(labtest.Main(m, map[string]labtest.Role{
		echoArg:   func(args []string) error { return serveEcho(os.Stdin, os.Stdout, args) },
		clientArg: func(args []string) error { return runClient(os.Stdin, os.Stdout, args) },
	}, "weft-server", "kubectl"))
}

// cluster is a lab with programs.
type cluster struct{ *labtest.Cluster }

func up(t *testing.T, text string) *cluster {
	t.Helper()
	top, err := topology.Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	c := labtest.Up(t, "modes", top, lab.Options{})
	c.Show = "weft status; nft list table inet weft"
	return &cluster{c}
}

// eventually waits for what must become true.
func (c *cluster) eventually(what string, limit time.Duration, ok func() (bool, string)) {
	c.T.Helper()
	labtest.Eventually(c.T, what, limit, func() error {
		done, saw := ok()
		if done {
			return nil
		}
		return errors.New(saw)
	})
}

const settingsFile = "/etc/weft/agent.yaml"

// argv is the command line of the host's agent, with its proxy mode in a file.
func (c *cluster) argv(host string) []string {
	c.T.Helper()
	list, err := c.Programs(c.T.Context(), host)
	if err != nil {
		c.T.Fatal(err)
	}
	for _, p := range list {
		if p.Name == lab.Agent {
			argv := slices.DeleteFunc(slices.Clone(p.Argv), func(a string) bool {
				return strings.HasPrefix(a, "--proxy-mode=") || strings.HasPrefix(a, "--config=")
			})
			return append(argv, "--config="+settingsFile)
		}
	}
	c.T.Fatalf("%s has no agent", host)
	return nil
}

// restart starts the host's agent anew with a mode in its file.
func (c *cluster) restart(host, mode string) {
	c.T.Helper()
	argv := c.argv(host)
	c.Write(host, settingsFile, "proxy-mode: "+mode+"\n")
	if err := c.Stop(c.T.Context(), host, lab.Agent); err != nil {
		c.T.Fatal(err)
	}
	if err := c.Run(c.T.Context(), host, lab.Agent, argv...); err != nil {
		c.T.Fatal(err)
	}
	if err := c.WaitReady(c.T.Context(), host, lab.Agent); err != nil {
		c.T.Fatal(err)
	}
}
