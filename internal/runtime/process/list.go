package process

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"weft/internal/runtime"
	"weft/internal/runtime/process/podinit"
)

// killed is the exit code of a container that ended with its pod's init: 128+SIGKILL.
const killed = 128 + 9

// List returns every sandbox that has not been removed, by UID, also those of a former agent. One whose init has died has PID 0.
func (r *Runtime) List(ctx context.Context) ([]runtime.SandboxStatus, error) {
	uids, err := r.uids()
	if err != nil {
		return nil, err
	}
	var all []runtime.SandboxStatus
	for _, uid := range uids {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		s, err := r.status(uid)
		if errors.Is(err, os.ErrNotExist) {
			continue // being made, or removed meanwhile
		}
		if err != nil {
			return nil, err
		}
		all = append(all, s)
	}
	return all, nil
}

// status reads a sandbox and its containers.
func (r *Runtime) status(uid string) (runtime.SandboxStatus, error) {
	var spec podinit.Spec
	if err := podinit.ReadJSON(filepath.Join(r.dir(uid), podinit.SandboxFile), &spec); err != nil {
		return runtime.SandboxStatus{}, fmt.Errorf("read sandbox %s: %w", uid, err)
	}
	s := runtime.SandboxStatus{Sandbox: spec.Sandbox, CreatedAt: spec.CreatedAt}
	id := r.identity(uid)
	if id.Alive() {
		s.PID = id.PID
		if !spec.HostNetwork {
			s.Netns = fmt.Sprintf("/proc/%d/ns/net", id.PID)
		}
	} else if err := r.buryContainers(uid); err != nil {
		return runtime.SandboxStatus{}, err
	}
	var err error
	if s.Containers, err = r.records(uid); err != nil {
		return runtime.SandboxStatus{}, err
	}
	if s.PID != 0 {
		r.translate(id.PID, s.Containers)
	}
	return s, nil
}

// records reads the containers' files, with the PIDs that the pod sees.
func (r *Runtime) records(uid string) ([]runtime.ContainerStatus, error) {
	paths, err := filepath.Glob(filepath.Join(r.dir(uid), podinit.ContainersDir, "*.json"))
	if err != nil {
		return nil, fmt.Errorf("list containers: %w", err)
	}
	var all []runtime.ContainerStatus
	for _, p := range paths {
		var c runtime.ContainerStatus
		if err := podinit.ReadJSON(p, &c); err != nil {
			return nil, fmt.Errorf("read container of sandbox %s: %w", uid, err)
		}
		all = append(all, c)
	}
	slices.SortFunc(all, func(a, b runtime.ContainerStatus) int { return strings.Compare(a.Name, b.Name) })
	return all, nil
}

// buryContainers writes down that the containers of a dead init have ended, so that the time of their end stays the same.
func (r *Runtime) buryContainers(uid string) error {
	all, err := r.records(uid)
	if err != nil {
		return err
	}
	for _, c := range all {
		if c.State != runtime.Running {
			continue
		}
		c.State, c.PID, c.ExitCode, c.FinishedAt = runtime.Exited, 0, killed, time.Now().UTC()
		if err := podinit.WriteJSON(filepath.Join(r.dir(uid), podinit.ContainersDir, c.Name+".json"), &c); err != nil {
			return fmt.Errorf("write container's end: %w", err)
		}
	}
	return nil
}

// translate replaces the running containers' PIDs in the pod by those that this process sees; 0 for one that has just ended.
func (r *Runtime) translate(initPID int, containers []runtime.ContainerStatus) {
	var seen map[int]int // read once, and only when there is something new
	for i := range containers {
		c := &containers[i]
		r.mu.Lock()
		pid, known := r.pids[c.ID]
		if c.State != runtime.Running {
			delete(r.pids, c.ID)
		}
		r.mu.Unlock()
		if c.State != runtime.Running {
			continue
		}
		if !known {
			if seen == nil {
				seen = childPIDs(initPID)
			}
			if pid = seen[c.PID]; pid != 0 {
				r.mu.Lock()
				r.pids[c.ID] = pid
				r.mu.Unlock()
			}
		}
		c.PID = pid
	}
}

// childPIDs finds the children of a pod's init: their PIDs as we see them, by the PIDs that the pod sees.
func childPIDs(initPID int) map[int]int {
	pids := map[int]int{}
	dirs, _ := filepath.Glob("/proc/[0-9]*") // the pattern is good
	for _, d := range dirs {
		b, err := os.ReadFile(filepath.Join(d, "status"))
		if err != nil {
			continue // ended meanwhile
		}
		parent, inner := parseStatus(string(b))
		if pid, err := strconv.Atoi(filepath.Base(d)); err == nil && parent == initPID {
			pids[inner] = pid
		}
	}
	return pids
}

// parseStatus takes the parent and the PID in the innermost namespace out of proc_pid_status(5).
func parseStatus(text string) (parent, inner int) {
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(line, ":")
		fields := strings.Fields(value)
		if len(fields) == 0 {
			continue
		}
		switch key {
		case "PPid":
			parent, _ = strconv.Atoi(fields[0])
		case "NSpid":
			inner, _ = strconv.Atoi(fields[len(fields)-1])
		}
	}
	return parent, inner
}
