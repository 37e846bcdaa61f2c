package lab

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"weft/internal/lab/host"
	"weft/internal/lab/topology"
)

// Descriptors a supervisor and a host inherit beside standard input and outputs.
const (
	fdState = 3 // supervisor: the state directory, locked as long as the lab lives
	fdLease = 4 // supervisor: reads "keep" or, when whoever made the lab is gone, the end
	fdReady = 5 // supervisor: answers "ok" or an error

	fdConfig = 3 // host: its host.Config
	fdAnswer = 4 // host: answers "ok" or an error
)

// keep is what the maker of a lab says to let the lab outlive it.
const keep = "keep\n"

// stopGrace bounds how long the hosts may take to stop their programs.
const stopGrace = 12 * time.Second

// supervisor is PID 1 of the lab's PID namespace and holds the underlay: when it dies, the kernel ends everything in the lab.
type supervisor struct {
	state string
	info  info
	hosts []*running
}

type running struct {
	topology.Host
	cmd    *exec.Cmd
	config *os.File // write end
	answer *os.File // read end
	done   chan struct{}
}

// supervise is the life of "weft lab-supervisor DIR".
func supervise(ctx context.Context, state string, stderr io.Writer) error {
	for _, fd := range []int{fdState, fdLease, fdReady} {
		syscall.CloseOnExec(fd)
	}
	lease, ready := os.NewFile(fdLease, "lease"), os.NewFile(fdReady, "ready")
	s := &supervisor{state: state}
	err := s.setUp()
	if err != nil {
		_, _ = fmt.Fprintln(ready, err) // whoever made the lab may be gone; the error is returned too
		return err
	}
	ctx, lost := context.WithCancel(ctx)
	defer lost()
	var orphan atomic.Bool
	go func() {
		word, _ := bufio.NewReader(lease).ReadString('\n')
		if word != keep {
			orphan.Store(true)
			lost()
		}
	}()
	for _, h := range s.hosts {
		go func() {
			err := h.cmd.Wait()
			if ctx.Err() == nil {
				fmt.Fprintf(stderr, "%s host %s ended: %v\n", time.Now().Format(time.RFC3339), h.Name, err)
			}
			close(h.done)
		}()
	}
	if _, err := fmt.Fprintln(ready, "ok"); err != nil {
		orphan.Store(true)
		lost()
	}
	_ = ready.Close()
	<-ctx.Done()
	if orphan.Load() {
		s.kill() // nobody waits for programs to end well
		return removeState(state)
	}
	s.stop()
	return nil
}

func (s *supervisor) setUp() error {
	if err := readJSON(s.state, &s.info); err != nil {
		return err
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mount /proc (a container that hides parts of /proc forbids this): %w", err)
	}
	host.NameProcess("weft-lab")
	for _, h := range s.info.Topology.Hosts {
		r, err := startHost(h)
		if err != nil {
			return fmt.Errorf("start host %s: %w", h.Name, err)
		}
		s.hosts = append(s.hosts, r)
	}
	if err := host.IP(s.underlay()...); err != nil {
		return fmt.Errorf("make underlay: %w", err)
	}
	return s.configure()
}

// underlay is the switch and its cables as lines of "ip -batch".
func (s *supervisor) underlay() []string {
	u := s.info.Topology.Underlay
	lines := []string{
		"link set lo up",
		fmt.Sprintf("link add underlay mtu %d type bridge forward_delay 0 mcast_snooping 0", u.MTU),
		fmt.Sprintf("addr add %s brd + dev underlay", netip.PrefixFrom(u.Gateway, u.Subnet.Bits())),
		"link set underlay up",
	}
	for i, h := range s.hosts {
		lines = append(lines,
			fmt.Sprintf("link add port%d mtu %d type veth peer name eth0 mtu %d netns %d", i, u.MTU, u.MTU, h.cmd.Process.Pid),
			fmt.Sprintf("link set port%d alias %s master underlay up", i, h.Name))
	}
	return lines
}

// configure tells the hosts what they are and waits until all are.
func (s *supervisor) configure() error {
	t := s.info.Topology
	var names []host.Entry
	for _, h := range t.Hosts {
		names = append(names, host.Entry{Address: h.Address, Name: h.Name})
	}
	errs := make([]error, len(s.hosts))
	var all sync.WaitGroup
	for i, h := range s.hosts {
		c := host.Config{
			Name: h.Name, Address: netip.PrefixFrom(h.Address, t.Underlay.Subnet.Bits()), Gateway: t.Underlay.Gateway,
			MTU: t.Underlay.MTU, Hosts: names, State: s.state, Bin: s.info.Bin,
		}
		all.Go(func() { errs[i] = h.tell(c) })
	}
	all.Wait()
	return errors.Join(errs...)
}

// startHost starts a host's init in namespaces of its own; it waits for its configuration.
func startHost(h topology.Host) (*running, error) {
	configR, configW, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("make pipe: %w", err)
	}
	defer configR.Close()
	answerR, answerW, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("make pipe: %w", err)
	}
	defer answerW.Close()
	cmd := exec.Command("/proc/self/exe", hostCommand, h.Name)
	cmd.Args[0] = "weft"
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.ExtraFiles = []*os.File{configR, answerW}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS | unix.CLONE_NEWUTS | unix.CLONE_NEWPID | unix.CLONE_NEWIPC,
		Setsid:     true,
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return &running{Host: h, cmd: cmd, config: configW, answer: answerR, done: make(chan struct{})}, nil
}

func (r *running) tell(c host.Config) error {
	defer r.answer.Close()
	err := json.NewEncoder(r.config).Encode(c)
	_ = r.config.Close()
	if err != nil {
		return fmt.Errorf("configure host %s: %w", r.Name, err)
	}
	answer, err := io.ReadAll(io.LimitReader(r.answer, 4096))
	if err != nil {
		return fmt.Errorf("wait for host %s: %w", r.Name, err)
	}
	if text := strings.TrimSpace(string(answer)); text != "ok" {
		return fmt.Errorf("make host %s: %s", r.Name, text)
	}
	return nil
}

// kill ends the hosts at once.
func (s *supervisor) kill() {
	for _, h := range s.hosts {
		_ = h.cmd.Process.Kill() // a host that has ended needs none
	}
	for _, h := range s.hosts {
		<-h.done
	}
}

// stop asks the hosts to stop their programs. What is left after stopGrace ends with the supervisor.
func (s *supervisor) stop() {
	for _, h := range s.hosts {
		_ = h.cmd.Process.Signal(syscall.SIGTERM) // a host that has ended needs none
	}
	late := time.NewTimer(stopGrace)
	defer late.Stop()
	for _, h := range s.hosts {
		select {
		case <-h.done:
		case <-late.C:
			return
		}
	}
}
