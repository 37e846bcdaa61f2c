// Package process runs pods as processes of the host: in network, mount, PID, IPC and UTS namespaces of their own, on the host's files.
//
// A pod is held by its init (package podinit), which outlives the agent; Runtime only asks it and reads what it wrote down. So pods,
// their logs and their exit codes survive the agent, and a new Runtime on the same directories knows them all.
//
// It is no sandbox: a container has the host's files and the agent's user. Images are names in a small built-in catalogue.
//
// Floor 3, edges.
package process

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"

	"github.com/spf13/cobra"

	"weft/internal/runtime/process/podinit"
)

// InitCommand is the hidden command `weft pod-init`, which the runtime starts by Config.Executable.
func InitCommand() *cobra.Command { return podinit.Command() }

// Config says where a Runtime keeps what and how it starts itself.
type Config struct {
	RunDir   string // state that ends with a reboot: RunDir/pods/UID, RunDir/applets
	StateDir string // the containers' logs: StateDir/pod-logs/NAMESPACE_NAME_UID/CONTAINER/ATTEMPT.log

	// Executable is the program, with leading arguments, that has the commands pod-init and image. Empty: this program.
	Executable []string
	Log        *slog.Logger // nil: slog.Default
}

// Runtime runs pods. Its methods may be called at the same time.
type Runtime struct {
	pods, logs, applets string
	exe                 []string
	log                 *slog.Logger
	changed             chan struct{}

	ctx    context.Context // of the watches, ended by Close
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu   sync.Mutex
	busy map[string]*lock // by UID
	pids map[string]int   // of running containers by ID, as this process sees them
}

// lock lets one create or remove of a pod run at a time.
type lock struct {
	sync.Mutex
	users int
}

// New opens the runtime's directories, makes them where they are missing, and watches the pods that are in them.
func New(c Config) (*Runtime, error) {
	if !filepath.IsAbs(c.RunDir) || !filepath.IsAbs(c.StateDir) {
		return nil, fmt.Errorf("pod directories: run directory %q and state directory %q must be absolute paths", c.RunDir, c.StateDir)
	}
	r := &Runtime{
		pods:    filepath.Join(c.RunDir, "pods"),
		logs:    filepath.Join(c.StateDir, "pod-logs"),
		applets: filepath.Join(c.RunDir, "applets"),
		exe:     c.Executable,
		log:     c.Log,
		changed: make(chan struct{}, 1),
		busy:    map[string]*lock{},
		pids:    map[string]int{},
	}
	if len(r.exe) == 0 {
		r.exe = []string{"/proc/self/exe"} // also right after the file has been replaced by a newer one
	}
	if r.log == nil {
		r.log = slog.Default()
	}
	for _, d := range []string{r.pods, r.logs} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return nil, fmt.Errorf("make pod directory: %w", err)
		}
	}
	if err := linkApplets(r.applets); err != nil {
		r.log.Warn("busybox's programs are missing in pods", "err", err)
	}
	if err := r.dropOrphanLogs(); err != nil {
		return nil, err
	}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	uids, err := r.uids()
	if err != nil {
		return nil, err
	}
	for _, uid := range uids {
		if r.identity(uid).Alive() {
			r.watch(uid)
		}
	}
	return r, nil
}

// Close stops watching. Pods run on.
func (r *Runtime) Close() error {
	r.cancel()
	r.wg.Wait()
	return nil
}

// Changed receives when something has exited since the last receive.
func (r *Runtime) Changed() <-chan struct{} { return r.changed }

func (r *Runtime) wake() {
	select {
	case r.changed <- struct{}{}:
	default: // a wake-up is pending already
	}
}

// watch wakes the consumer at every exit in the pod, and when its init ends.
func (r *Runtime) watch(uid string) {
	conn, err := podinit.Call(r.dir(uid), &podinit.Request{Op: podinit.OpWatch})
	if err != nil {
		r.log.Error("exits in the pod will be seen late", "uid", uid, "err", err)
		return
	}
	stop := context.AfterFunc(r.ctx, func() { _ = conn.Close() })
	r.wg.Go(func() {
		defer func() { _ = conn.Close() }()
		defer stop()
		for {
			_, err := conn.Next()
			if r.ctx.Err() != nil {
				return
			}
			r.wake()
			if err != nil {
				return
			}
		}
	})
}

func (r *Runtime) dir(uid string) string { return filepath.Join(r.pods, uid) }

// lock takes the pod's lock and returns what gives it back.
func (r *Runtime) lock(uid string) (unlock func()) {
	r.mu.Lock()
	l := r.busy[uid]
	if l == nil {
		l = &lock{}
		r.busy[uid] = l
	}
	l.users++
	r.mu.Unlock()
	l.Lock()
	return func() {
		l.Unlock()
		r.mu.Lock()
		defer r.mu.Unlock()
		if l.users--; l.users == 0 {
			delete(r.busy, uid)
		}
	}
}

// identity reads who holds the pod; the zero value, which is never alive, when nobody does.
func (r *Runtime) identity(uid string) podinit.Identity {
	var id podinit.Identity
	if podinit.ReadJSON(filepath.Join(r.dir(uid), podinit.IdentityFile), &id) != nil {
		return podinit.Identity{}
	}
	return id
}

// uids lists the pods that have a directory.
func (r *Runtime) uids() ([]string, error) {
	entries, err := os.ReadDir(r.pods)
	if err != nil {
		return nil, fmt.Errorf("list pods: %w", err)
	}
	var uids []string
	for _, e := range entries {
		if e.IsDir() {
			uids = append(uids, e.Name())
		}
	}
	return uids, nil
}

// checkName refuses what could leave the directory it names a file in.
func checkName(field, value string) error {
	if value == "" || len(value) > 253 || value[0] == '.' || strings.ContainsAny(value, "/\x00") {
		return fmt.Errorf("%s %q: must have 1 to 253 characters, no slash, and not begin with a dot", field, value)
	}
	return nil
}

// linkApplets makes a directory of links to busybox, one for each of its programs, so that pods have telnet, nc, wget and netstat on
// a host that has only busybox.
func linkApplets(dir string) error {
	const busybox = "/bin/busybox"
	if _, err := os.Stat(dir); err == nil {
		return nil // complete: it appears in one step
	}
	out, err := exec.Command(busybox, "--list").Output()
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list busybox's programs: %w", err)
	}
	tmp, err := os.MkdirTemp(filepath.Dir(dir), "applets-")
	if err != nil {
		return fmt.Errorf("make applet directory: %w", err)
	}
	defer func() { _ = os.RemoveAll(tmp) }() // gone when all is well
	if err := os.Chmod(tmp, 0o755); err != nil {
		return fmt.Errorf("open applet directory to all: %w", err)
	}
	for name := range strings.FieldsSeq(string(out)) {
		if err := os.Symlink(busybox, filepath.Join(tmp, name)); err != nil {
			return fmt.Errorf("link applet: %w", err)
		}
	}
	if err := os.Rename(tmp, dir); err != nil {
		return fmt.Errorf("place applet directory: %w", err)
	}
	return nil
}
