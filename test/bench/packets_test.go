package bench

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"weft/test/daemon"
)

// sender sends single datagrams, which the pod they are for drops as they come in. All of their way, both hosts too, is within the
// system call that sends: no scheduler, no other processor and no answer is in the time, which therefore tells what a rule costs.
type sender struct {
	ask chan batch
	got chan time.Duration
	err chan error
}

// batch is a number of datagrams, each of a flow of its own or all of one.
type batch struct {
	n     int
	fresh bool
}

func newSender(tb testing.TB, c *contestant) *sender {
	tb.Helper()
	in := "nsenter --net=" + c.to.Path() + " nft add "
	daemon.Run(tb, in+"table inet test")
	daemon.Run(tb, in+"chain inet test swallow { type filter hook prerouting priority -400 ; }")
	daemon.Run(tb, in+"rule inet test swallow meta l4proto udp drop")
	s := &sender{ask: make(chan batch), got: make(chan time.Duration), err: make(chan error, 1)}
	go func() {
		s.err <- c.from.Do(func() error { return s.serve(unix.SockaddrInet4{Addr: c.at.As4(), Port: firstPort}) })
	}()
	tb.Cleanup(func() { close(s.ask) })
	return s
}

const firstPort, lastPort = 1000, 60000

func (s *sender) serve(to unix.SockaddrInet4) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	for b := range s.ask {
		begun := time.Now()
		for range b.n {
			if b.fresh {
				to.Port++
			}
			if err := unix.Sendto(fd, []byte{1}, 0, &to); err != nil {
				return err
			}
		}
		s.got <- time.Since(begun)
		if to.Port+b.n < lastPort {
			continue
		}
		to.Port = firstPort // another source port: all flows are new again
		if err := unix.Close(fd); err != nil {
			return err
		}
		if fd, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
	}
	return nil
}

// each sends datagrams and returns how many nanoseconds one took.
func (s *sender) each(tb testing.TB, b batch) float64 {
	tb.Helper()
	s.ask <- b
	select {
	case d := <-s.got:
		return float64(d.Nanoseconds()) / float64(b.n)
	case err := <-s.err:
		tb.Fatal(err)
		return 0
	}
}

// BenchmarkPacket measures what a packet costs from pod to pod between two hosts, through weft and through what flannel builds, in turns:
// one of a flow that is known, and one that begins a flow.
func BenchmarkPacket(b *testing.B) {
	race := podPaths(b)
	senders := []*sender{newSender(b, race[0]), newSender(b, race[1])}
	var known, fresh [2][]float64
	for round := 0; b.Loop(); round++ {
		for turn := range turns {
			for k := range senders {
				i := (k + turn + round) % len(senders)
				senders[i].each(b, batch{n: 20}) // warm
				known[i] = append(known[i], senders[i].each(b, batch{n: 200}))
				fresh[i] = append(fresh[i], senders[i].each(b, batch{n: 30, fresh: true}))
			}
		}
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(ratio(known[0], known[1]), "known-ratio")
	b.ReportMetric(ratio(fresh[0], fresh[1]), "new-ratio")
	for i, c := range race[:2] {
		b.ReportMetric(middle(known[i]), c.name+"-known-ns")
		b.ReportMetric(middle(fresh[i]), c.name+"-new-ns")
	}
}
