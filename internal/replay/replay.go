// Package replay performs the walkthrough on a running lab, row by row: it runs the commands the article runs, prints
// them with their output as on a terminal, and checks what each row must show.
//
// Floor 4, programs.
package replay

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

//go:embed manifests
var manifests embed.FS

// Cluster is the lab as the replay needs it.
type Cluster interface {
	// Exec runs a command on a host and returns its standard output.
	Exec(ctx context.Context, host string, cmd ...string) (string, error)
	// Kubectl runs kubectl with the admin kubeconfig on the master.
	Kubectl(ctx context.Context, args ...string) (string, error)
	// Restart stops a program on a host and starts it with other flags added to (or replacing) its own.
	Restart(ctx context.Context, host, program string, flags ...string) error
	// WriteFile puts a file on a host.
	WriteFile(ctx context.Context, host, path string, data []byte) error
}

// The hosts of the walkthrough.
const (
	master = "kube-master"
	node1  = "kube-node1"
	node2  = "kube-node2"
)

// Addresses of the walkthrough's hosts.
var addressOf = map[string]string{master: "172.17.42.30", node1: "172.17.42.31", node2: "172.17.42.32"}

// Subnets the walkthrough's hosts hold.
var subnetOf = map[string]string{node1: "172.16.28", node2: "172.16.78"}

// Rows is the number of rows the replay performs, for the progress line.
type row struct {
	id    string
	title string
	run   func(*run) error
}

// run is one replay.
type run struct {
	ctx    context.Context
	lab    Cluster
	out    io.Writer
	color  bool
	mode   string // proxy mode in force
	passed int
	failed []string
	row    string
	facts  facts
}

// facts is what one row learns and a later one needs.
type facts struct {
	vip      string
	nginx    map[string]pod // node -> its nginx pod
	sshd     pod            // sshd-2
	ports    map[string]string
	previous map[string]string
}

type pod struct{ name, ip, node string }

// Options of a replay.
type Options struct {
	Color bool // escape sequences: only for a terminal
}

// Result counts the checks of a replay.
type Result struct {
	Passed int
	Failed []string // "row 5: ..." of every check that failed
}

// Run performs every row and prints the transcript to out. The error says how many checks failed, or what stopped it.
func Run(ctx context.Context, lab Cluster, out io.Writer, o Options) (Result, error) {
	return perform(ctx, lab, out, o, rows())
}

func perform(ctx context.Context, lab Cluster, out io.Writer, o Options, rows []row) (Result, error) {
	r := &run{ctx: ctx, lab: lab, out: out, color: o.Color, mode: "userspace"}
	r.facts.nginx, r.facts.ports = map[string]pod{}, map[string]string{}
	r.facts.previous = map[string]string{}
	for _, x := range rows {
		r.begin(x)
		if err := x.run(r); err != nil {
			if ctx.Err() != nil {
				return r.result(), fmt.Errorf("replay row %s: %w", x.id, ctx.Err())
			}
			r.fail("%v", err)
		}
	}
	res := r.result()
	if len(res.Failed) > 0 {
		return res, fmt.Errorf("replay: %d of %d checks failed: %s", len(res.Failed), res.Passed+len(res.Failed), strings.Join(res.Failed, "; "))
	}
	plural := "rows"
	if len(rows) == 1 {
		plural = "row"
	}
	fmt.Fprintf(out, "\n%s\n", r.paint(green, fmt.Sprintf("%d %s replayed, %d checks passed", len(rows), plural, res.Passed)))
	return res, nil
}

func (r *run) result() Result { return Result{Passed: r.passed, Failed: r.failed} }

func rows() []row {
	return []row{
		{"1", "hosts", rowHosts},
		{"2", "kube-apiserver", rowAPIServer},
		{"3", "etcd", rowEtcd},
		{"4", "flannel subnets", rowSubnets},
		{"11", "ReplicationController", rowReplicationController},
		{"5", "flannel.1", rowDevice},
		{"6", "docker0", rowBridge},
		{"8", "node reaches every container", rowNodeToPod},
		{"9", "VXLAN on the wire", rowCapture},
		{"7", "masquerade", rowMasquerade},
		{"12", "Service", rowService},
		{"13", "kube-proxy, userspace", rowRules},
		{"14", "container to service", rowPodToService},
		{"15", "node to service", rowNodeToService},
		{"16", "pictures", rowPictures},
		{"12i", "Service, mode iptables", rowSwitchToIPTables},
		{"14i", "container to service, mode iptables", rowPodToServiceConntrack},
		{"15i", "node to service, mode iptables", rowNodeToServiceConntrack},
		{"12n", "Service, mode nftables", rowSwitchToNFTables},
		{"14n", "container to service, mode nftables", rowPodToServiceConntrack},
		{"15n", "node to service, mode nftables", rowNodeToServiceConntrack},
	}
}

const (
	bold  = "1"
	green = "32"
	red   = "31"
	dim   = "2"
)

func (r *run) paint(code, text string) string {
	if !r.color {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

func (r *run) begin(x row) {
	r.row = x.id
	fmt.Fprintf(r.out, "\n%s\n", r.paint(bold, fmt.Sprintf("== row %s: %s", x.id, x.title)))
}

// say prints a sentence of explanation.
func (r *run) say(format string, args ...any) {
	fmt.Fprintf(r.out, "%s\n", r.paint(dim, "# "+fmt.Sprintf(format, args...)))
}

// check counts and prints one thing the row must show.
func (r *run) check(ok bool, format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if !ok {
		r.fail("%s", text)
		return
	}
	r.passed++
	fmt.Fprintf(r.out, "%s %s\n", r.paint(green, "ok:"), text)
}

func (r *run) fail(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	r.failed = append(r.failed, "row "+r.row+": "+text)
	fmt.Fprintf(r.out, "%s %s\n", r.paint(red, "FAILED:"), text)
}

// has checks that the output holds every one of the texts.
func (r *run) has(output string, texts ...string) {
	for _, t := range texts {
		r.check(strings.Contains(output, t), "%q", t)
	}
}

// sh prints a prompt with the command, runs it on the host and prints its output.
func (r *run) sh(host, command string) string {
	fmt.Fprintf(r.out, "[root@%s ~]# %s\n", host, command)
	out, err := r.lab.Exec(r.ctx, host, "sh", "-c", command)
	r.print(out)
	if err != nil {
		fmt.Fprintf(r.out, "(%v)\n", err)
	}
	return out
}

// quiet runs a command without printing it.
func (r *run) quiet(host, command string) (string, error) {
	return r.lab.Exec(r.ctx, host, "sh", "-c", command)
}

func (r *run) kubectl(args ...string) string {
	fmt.Fprintf(r.out, "# kubectl %s\n", strings.Join(args, " "))
	out, err := r.lab.Kubectl(r.ctx, args...)
	r.print(out)
	if err != nil {
		fmt.Fprintf(r.out, "(%v)\n", err)
	}
	return out
}

func (r *run) print(out string) {
	if out = strings.TrimRight(out, "\n"); out != "" {
		fmt.Fprintln(r.out, out)
	}
}

// errTimeout says that a condition did not come true in time.
var errTimeout = errors.New("timed out")

// wait asks until ok says yes or the time is over.
func (r *run) wait(what string, limit time.Duration, ok func() bool) error {
	deadline := time.NewTimer(limit)
	defer deadline.Stop()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		if ok() {
			return nil
		}
		select {
		case <-r.ctx.Done():
			return r.ctx.Err()
		case <-deadline.C:
			return fmt.Errorf("wait for %s: %w after %s", what, errTimeout, limit)
		case <-tick.C:
		}
	}
}
