package trace

import (
	"context"
	"errors"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"weft/internal/kernel/netns"
	"weft/internal/packet"
)

func TestMain(m *testing.M) { os.Exit(netns.Main(m)) }

func TestCaptureSeesAPacketOnLo(t *testing.T) {
	netns.Need(t)
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	got := make(chan string, 1)
	failed := make(chan error, 1)
	go func() {
		failed <- Capture(ctx, "lo", func(b []byte) bool {
			f, err := packet.Decode(b, packet.VXLANPort)
			if err != nil || f.IP == nil || f.IP.Dst.Port() != 4242 {
				return true
			}
			got <- f.String()
			return false
		})
	}()
	c, err := net.Dial("udp", "127.0.0.1:4242")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	tick := time.NewTicker(10 * time.Millisecond) // the capture begins at some moment: send until it has seen one
	defer tick.Stop()
	for {
		select {
		case text := <-got:
			if !strings.HasPrefix(text, "udp 127.0.0.1:") || !strings.Contains(text, "-> 127.0.0.1:4242") {
				t.Errorf("captured %q", text)
			}
			if err := <-failed; err != nil {
				t.Error(err)
			}
			return
		case err := <-failed:
			t.Fatal(err)
		case <-tick.C:
			_, _ = c.Write([]byte("x")) // refused by nobody: there is no listener
		}
	}
}

func TestCaptureNamesTheMissingInterface(t *testing.T) {
	err := Capture(t.Context(), "nosuch0", func([]byte) bool { return false })
	if err == nil || !strings.Contains(err.Error(), "nosuch0") {
		t.Errorf("error %v", err)
	}
}

func TestCaptureEndsWithItsContext(t *testing.T) {
	netns.Need(t)
	ctx, stop := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer stop()
	if err := Capture(ctx, "lo", func([]byte) bool { return true }); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v", err)
	}
}
