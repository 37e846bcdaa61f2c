package sysctl_test

import (
	"context"
	"os/exec"
	"testing"
	"time"

	"weft/internal/kernel/netns"
	"weft/internal/kernel/sysctl"
)

// TestFiles: writes by other processes cause events, also for a device that was made anew, and no more after Set without the parameter.
func TestFiles(t *testing.T) {
	netns.Need(t)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	f, err := sysctl.WatchFiles(ctx)
	if err != nil {
		t.Fatal(err)
	}
	sh := func(command string) {
		t.Helper()
		if out, err := exec.CommandContext(t.Context(), "sh", "-c", command).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", command, err, out)
		}
	}
	fired := func(within time.Duration) bool {
		select {
		case _, ok := <-f.Changed():
			return ok
		case <-time.After(within):
			return false
		}
	}
	set := func(names ...string) {
		t.Helper()
		if err := f.Set(names); err != nil {
			t.Fatal(err)
		}
	}
	const lo, dev = "net/ipv4/conf/lo/accept_local", "net/ipv4/conf/files0/accept_local"
	set(lo, dev, "net/ipv4/conf/none/rp_filter")
	sh("echo 1 > /proc/sys/" + lo)
	if !fired(30 * time.Second) {
		t.Error("no event for a parameter that netlink does not tell of")
	}
	for range 2 {
		sh("ip link add files0 type veth peer name files1")
		set(lo, dev)
		sh("echo 1 > /proc/sys/" + dev)
		if !fired(30 * time.Second) {
			t.Error("no event for a new device's parameter")
		}
		sh("ip link del files0")
	}
	set(dev)
	for fired(20 * time.Millisecond) { // what removing a watch says
	}
	for try := 1; ; try++ { // an event may be what is said late of something else, but not each time
		sh("echo 0 > /proc/sys/" + lo)
		if !fired(50 * time.Millisecond) {
			break
		}
		if try == 5 {
			t.Fatal("an event of a parameter that is no longer watched")
		}
	}
	if err := f.Set([]string{"../self/comm"}); err == nil {
		t.Error("a path outside of /proc/sys was taken")
	}
	stop()
	for range f.Changed() { // closed
	}
	if err := f.Set([]string{lo}); err != nil {
		t.Error(err)
	}
}
