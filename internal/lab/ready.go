package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"weft/internal/lab/control"
	"weft/internal/lab/host"
	"weft/internal/lab/kubeconfig"
)

// WaitReady waits until the server's API or a node's agent says that it is ready. Another program is ready when it runs. The error shows
// the last lines of the log of a program that ended instead.
func (l *Lab) WaitReady(ctx context.Context, hostName, program string) error {
	return l.wait(ctx, hostName, program, program+" on "+hostName+" to be ready", func(ctx context.Context) error {
		switch program {
		case Server:
			return l.get(ctx, hostName, "/readyz", nil)
		case Agent:
			return l.agentReady(ctx, hostName)
		}
		return nil
	})
}

// wait tries until ok says yes, the program ends or ctx does.
func (l *Lab) wait(ctx context.Context, hostName, program, what string, ok func(context.Context) error) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	last := errNotReady
	for {
		if err := l.alive(ctx, hostName, program); err != nil && ctx.Err() == nil {
			return fmt.Errorf("wait for %s: %w", what, err)
		}
		try, cancel := context.WithTimeout(ctx, 5*time.Second)
		err := ok(try)
		cancel()
		if err == nil {
			return nil
		}
		if ctx.Err() == nil {
			last = err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.Canceled) {
				return fmt.Errorf("wait for %s: %w", what, context.Cause(ctx))
			}
			return fmt.Errorf("wait for %s: %w: %w\nlast lines of %s:\n%s",
				what, context.Cause(ctx), last, l.LogFile(hostName, program), tail(l.LogFile(hostName, program), 10))
		}
	}
}

// alive returns an error with the end of the log when the program does not run.
func (l *Lab) alive(ctx context.Context, hostName, program string) error {
	list, err := l.Programs(ctx, hostName)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(list, func(s control.Status) bool { return s.Name == program })
	switch {
	case i < 0:
		return fmt.Errorf("%s on %s: %w", program, hostName, control.ErrNoProgram)
	case !list[i].Running:
		return fmt.Errorf("%s on %s ended (%s), last lines of %s:\n%s", program, hostName, list[i].Exit,
			l.LogFile(hostName, program), tail(l.LogFile(hostName, program), 10))
	}
	return nil
}

// errNotReady says that an answer came, and it was no.
var errNotReady = errors.New("not ready")

func (l *Lab) agentReady(ctx context.Context, hostName string) error {
	bind, err := l.flag(ctx, hostName, Agent, "healthz-bind", "0.0.0.0:10256")
	if err != nil || bind == "" {
		return err
	}
	client := &http.Client{Transport: l.transport(hostName)}
	return fetch(ctx, client, "http://"+bind+"/readyz", nil)
}

// flag returns the value a program's flag has on its command line.
func (l *Lab) flag(ctx context.Context, hostName, program, name, otherwise string) (string, error) {
	list, err := l.Programs(ctx, hostName)
	if err != nil {
		return "", err
	}
	for _, s := range list {
		if s.Name != program {
			continue
		}
		for _, arg := range s.Argv {
			if strings.HasPrefix(arg, "-") && flagName(arg) == name {
				_, value, _ := strings.Cut(arg, "=")
				return value, nil
			}
		}
	}
	return otherwise, nil
}

// transport makes HTTP connections from a host.
func (l *Lab) transport(hostName string) *http.Transport {
	return &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			return l.Dial(ctx, hostName, network, addr)
		},
	}
}

// get asks the API as the admin, from the master, and decodes a JSON answer into v unless v is nil.
func (l *Lab) get(ctx context.Context, master, path string, v any) error {
	h, _ := l.info.Topology.Host(master)
	data, err := os.ReadFile(host.Disk(l.dir, master, adminWritten))
	if err != nil {
		return fmt.Errorf("read admin's credentials: %w", err)
	}
	config, err := kubeconfig.TLS(data)
	if err != nil {
		return err
	}
	tr := l.transport(master)
	tr.TLSClientConfig = config
	port, err := l.flag(ctx, master, Server, "secure-port", strconv.Itoa(l.info.Topology.Cluster.SecurePort))
	if err != nil {
		return err
	}
	return fetch(ctx, &http.Client{Transport: tr}, "https://"+net.JoinHostPort(h.Address.String(), port)+path, v)
}

func fetch(ctx context.Context, client *http.Client, url string, v any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return fmt.Errorf("make request: %w", err)
	}
	res, err := client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return fmt.Errorf("read answer of %s: %w", url, err)
	}
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %w: %s: %s", url, errNotReady, res.Status, lastLines(string(body), 3))
	}
	if v == nil {
		return nil
	}
	if err := json.Unmarshal(body, v); err != nil {
		return fmt.Errorf("decode answer of %s: %w", url, err)
	}
	return nil
}

func (l *Lab) nodeReady(ctx context.Context, master, node string) error {
	var n struct {
		Status struct {
			Conditions []struct{ Type, Status, Message string }
		}
	}
	if err := l.get(ctx, master, "/api/v1/nodes/"+node, &n); err != nil {
		return err
	}
	for _, c := range n.Status.Conditions {
		if c.Type == "Ready" && c.Status == "True" {
			return nil
		}
		if c.Type == "Ready" {
			return fmt.Errorf("node %s: %w: %s", node, errNotReady, c.Message)
		}
	}
	return fmt.Errorf("node %s: %w: no Ready condition yet", node, errNotReady)
}

// Subnet is the pod subnet a node holds, as its subnet.env tells.
func (l *Lab) Subnet(ctx context.Context, node string) (netip.Prefix, error) {
	data, err := l.ReadFile(ctx, node, "/run/flannel/subnet.env")
	if err != nil {
		return netip.Prefix{}, err
	}
	for line := range strings.Lines(string(data)) {
		if value, ok := strings.CutPrefix(strings.TrimSpace(line), "FLANNEL_SUBNET="); ok {
			p, err := netip.ParsePrefix(value)
			if err != nil {
				return netip.Prefix{}, fmt.Errorf("read subnet.env of %s: %w", node, err)
			}
			return p.Masked(), nil
		}
	}
	return netip.Prefix{}, fmt.Errorf("read subnet.env of %s: no FLANNEL_SUBNET in it", node)
}
