package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"weft/internal/agent/world"
	"weft/internal/api"
	"weft/internal/explain"
	"weft/internal/lab/topology"
	"weft/internal/netstate"
	"weft/internal/packet"
)

// explainOptions are the flags of "weft explain" and "weft graph".
type explainOptions struct {
	cluster  world.Options
	output   string
	graph    string
	proto    string
	endpoint string
	at       string
}

func explainCommand() *cobra.Command {
	var o explainOptions
	c := &cobra.Command{
		Use:   "explain FROM TO[:PORT]",
		Short: "the way of a packet, hop by hop, with the object that decides each",
		Long: `Explain plans every node of the cluster and walks a packet through the plans. No agent is asked.

FROM is a pod (NAMESPACE/NAME, or NAME in namespace default), a node, or an address; one that no node or pod has is a client outside the cluster.
TO is a service or a pod (same form), or an address, with a port; a service with one port needs none.`,
		Example: `  weft explain default/sshd-2 my-nginx-service
  weft explain kube-node1 default/nginx-x5qqd:80
  weft explain kube-node1 my-nginx-service:8080 -o json
  weft explain 198.51.100.7 172.17.42.31:30080`,
		Args: cobra.ExactArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			return o.run(c.Context(), c.OutOrStdout(), args[0], args[1])
		},
	}
	o.cluster.Flags(c.Flags())
	c.Flags().StringVarP(&o.output, "output", "o", "", "json")
	c.Flags().StringVar(&o.graph, "graph", "", "draw: text (the topology before the steps) or svg")
	c.Flags().StringVar(&o.proto, "proto", "tcp", "tcp, udp or sctp")
	c.Flags().StringVar(&o.endpoint, "endpoint", "", "address of the endpoint to follow when there are several; the first by default")
	c.Flags().StringVar(&o.at, "at", "", "the node that the packet of a client outside the cluster reaches; empty: the one whose address TO is")
	return c
}

func (o explainOptions) run(ctx context.Context, out io.Writer, from, to string) error {
	if !slices.Contains([]string{"tcp", "udp", "sctp"}, o.proto) {
		return fmt.Errorf("--proto=%s: want tcp, udp or sctp", o.proto)
	}
	ctx, stop := context.WithTimeout(ctx, 15*time.Second)
	defer stop()
	snap, leases, err := world.Read(ctx, o.cluster)
	if err != nil {
		return err
	}
	w, err := world.Plan(snap, leases)
	if err != nil {
		return err
	}
	dst, err := destination(snap, to, o.proto)
	if err != nil {
		return err
	}
	choose, err := o.choice()
	if err != nil {
		return err
	}
	t, err := o.walk(w, from, packet.Flow{Proto: o.proto, Dst: dst}, choose)
	if err != nil {
		return err
	}
	return o.print(out, w, t)
}

// walk follows the packet from a pod or a node, or from where a client outside the cluster reaches a node.
func (o explainOptions) walk(w explain.World, from string, f packet.Flow, choose explain.Choose) (explain.Trace, error) {
	client, err := netip.ParseAddr(from)
	if err != nil {
		if from, err = findSource(w, from); err != nil {
			return explain.Trace{}, err
		}
		return explain.Walk(w, from, f, choose)
	}
	if owner := w.Owner(client); owner != "" {
		return explain.Walk(w, owner, f, choose)
	}
	at := o.at
	if at == "" {
		at = w.Owner(f.Dst.Addr())
	}
	if at == "" {
		return explain.Trace{}, fmt.Errorf("%s is outside the cluster, and %s is no node's address: name the node that the packet reaches with --at", from, f.Dst.Addr())
	}
	if client.Is6() != f.Dst.Addr().Is6() {
		return explain.Trace{}, fmt.Errorf("%s and %s are of different families: a packet has addresses of one", from, f.Dst.Addr())
	}
	f.Src = netip.AddrPortFrom(client, 0)
	return explain.Arrive(w, at, f, choose)
}

func (o explainOptions) choice() (explain.Choose, error) {
	if o.endpoint == "" {
		return nil, nil
	}
	want, err := netip.ParseAddr(o.endpoint)
	if err != nil {
		return nil, fmt.Errorf("--endpoint=%s: want an address like 172.16.78.10", o.endpoint)
	}
	return func(all []netip.AddrPort) netip.AddrPort {
		i := slices.IndexFunc(all, func(a netip.AddrPort) bool { return a.Addr() == want })
		return all[max(i, 0)]
	}, nil
}

func (o explainOptions) print(out io.Writer, w explain.World, t explain.Trace) error {
	switch {
	case o.graph == "svg":
		_, err := io.WriteString(out, t.SVG())
		return err
	case o.graph != "" && o.graph != "text":
		return fmt.Errorf("--graph=%s: want text or svg", o.graph)
	case o.output == "json":
		enc := json.NewEncoder(out)
		enc.SetIndent("", "  ")
		return enc.Encode(t)
	case o.output != "":
		return fmt.Errorf("--output=%s: want json, or leave it out", o.output)
	}
	if o.graph == "text" {
		fmt.Fprintln(out, w.Text())
	}
	_, err := io.WriteString(out, t.Text())
	return err
}

// findSource resolves a pod or node name to a host of the world; a bare name is a node, else a pod of namespace default.
func findSource(w explain.World, name string) (string, error) {
	var names []string
	for _, h := range w.Hosts {
		if h.Name == name || h.Pod && h.Name == "default/"+name {
			return h.Name, nil
		}
		names = append(names, h.Name)
	}
	slices.Sort(names)
	return "", fmt.Errorf("no node or pod %q: there are %s", name, strings.Join(names, ", "))
}

var errNoPort = errors.New("give a port, as in NAME:80")

// destination resolves TO: an address, a service's first cluster address, or a pod's address.
func destination(snap api.Snapshot, to, proto string) (netip.AddrPort, error) {
	name, port, err := splitPort(to)
	if err != nil {
		return netip.AddrPort{}, err
	}
	if ip, err := netip.ParseAddr(name); err == nil {
		if port == 0 {
			return netip.AddrPort{}, fmt.Errorf("%s: %w", to, errNoPort)
		}
		return netip.AddrPortFrom(ip, port), nil
	}
	if !strings.Contains(name, "/") {
		name = "default/" + name
	}
	if dst, found, err := servicePort(snap, name, port, proto); found || err != nil {
		return dst, err
	}
	for _, p := range snap.Pods {
		if p.Namespace+"/"+p.Name == name && len(p.IPs) > 0 {
			if port == 0 {
				return netip.AddrPort{}, fmt.Errorf("pod %s: %w", name, errNoPort)
			}
			return netip.AddrPortFrom(p.IPs[0], port), nil
		}
	}
	return netip.AddrPort{}, fmt.Errorf("no service with a cluster address and no pod with an address is called %s", name)
}

// servicePort finds the service's address; the port may be 0 when there is only one.
func servicePort(snap api.Snapshot, name string, port uint16, proto string) (dst netip.AddrPort, found bool, err error) {
	var ports []string
	for _, s := range snap.Services {
		if s.Name.Namespace+"/"+s.Name.Name != name || !strings.EqualFold(string(s.Protocol), proto) || len(s.ClusterIPs) == 0 {
			continue
		}
		if port == s.Port || port == 0 && countPorts(snap, name, proto) == 1 {
			return netip.AddrPortFrom(s.ClusterIPs[0], s.Port), true, nil
		}
		ports = append(ports, strconv.Itoa(int(s.Port)))
	}
	if len(ports) > 0 {
		err = fmt.Errorf("service %s has the %s ports %s: name one of them, as in %s:%s", name, proto, strings.Join(ports, ", "), name, ports[0])
	}
	return dst, false, err
}

func countPorts(snap api.Snapshot, name, proto string) int {
	n := 0
	for _, s := range snap.Services {
		if s.Name.Namespace+"/"+s.Name.Name == name && strings.EqualFold(string(s.Protocol), proto) {
			n++
		}
	}
	return n
}

// splitPort takes ":PORT" off the end; IPv6 addresses with a port are written in brackets.
func splitPort(to string) (string, uint16, error) {
	if ap, err := netip.ParseAddrPort(to); err == nil {
		return ap.Addr().String(), ap.Port(), nil
	}
	if ip, err := netip.ParseAddr(to); err == nil {
		return ip.String(), 0, nil
	}
	name, text, ok := strings.Cut(to, ":")
	if !ok {
		return to, 0, nil
	}
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil || port == 0 {
		return "", 0, fmt.Errorf("%s: port %q: want a number from 1 to 65535", to, text)
	}
	return name, uint16(port), nil
}

func graphCommand() *cobra.Command {
	var o explainOptions
	var hosts map[string]string
	c := &cobra.Command{
		Use:   "graph",
		Short: "the topology: nodes, devices, pods, as text or SVG",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			ctx, stop := context.WithTimeout(c.Context(), 15*time.Second)
			defer stop()
			snap, leases, err := world.Read(ctx, o.cluster)
			if err != nil {
				return err
			}
			w, err := world.Plan(snap, leases)
			if err != nil {
				return err
			}
			if err := addHosts(&w, hosts); err != nil {
				return err
			}
			text := w.Text()
			switch o.output {
			case "":
			case "svg":
				text = w.SVG()
			default:
				return fmt.Errorf("--output=%s: want svg, or leave it out", o.output)
			}
			_, err = io.WriteString(c.OutOrStdout(), text)
			return err
		},
	}
	o.cluster.Flags(c.Flags())
	c.Flags().StringVarP(&o.output, "output", "o", "", "svg")
	c.Flags().StringToStringVar(&hosts, "host", nil, "NAME=ADDRESS of a host that is no node, as the control plane's; repeatable")
	return c
}

// addHosts puts hosts that the API does not know first in the picture.
func addHosts(w *explain.World, hosts map[string]string) error {
	for _, name := range slices.Sorted(maps.Keys(hosts)) {
		ip, err := netip.ParseAddr(hosts[name])
		if err != nil {
			return fmt.Errorf("--host=%s=%s: want an address like 172.17.42.30", name, hosts[name])
		}
		h := &explain.Host{Name: name, Underlay: netstate.New(netstate.Addr{Dev: "eth0", Prefix: netip.PrefixFrom(ip, ip.BitLen())})}
		w.Hosts = slices.Insert(w.Hosts, 0, h)
	}
	return nil
}

// graphArgs is the command line that draws a lab's picture.
func graphArgs(flow string, svg bool, masters []topology.Host) ([]string, error) {
	if flow == "" {
		argv := []string{"weft", "graph"}
		for _, m := range masters {
			argv = append(argv, "--host="+m.Name+"="+m.Address.String())
		}
		if svg {
			argv = append(argv, "-o", "svg")
		}
		return argv, nil
	}
	from, to, ok := strings.Cut(flow, ",")
	if !ok {
		return nil, fmt.Errorf("--flow=%s: want FROM,TO, as in default/sshd-2,my-nginx-service", flow)
	}
	graph := "text"
	if svg {
		graph = "svg"
	}
	return []string{"weft", "explain", from, to, "--graph", graph}, nil
}
