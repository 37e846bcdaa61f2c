package process

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"weft/internal/runtime"
	"weft/internal/runtime/process/podinit"
)

// StartContainer starts a container in the sandbox. One of that name and attempt that runs already is the answer. An image that is not
// in the catalogue is a runtime.ErrImage, a missing sandbox a runtime.ErrNotFound, a missing program an exec.ErrNotFound.
//
// Of the logs, this attempt's and the one's before are kept: LogPath is in a directory with ATTEMPT.log for each, and ATTEMPT.log.1
// for what came before the last 10 MiB.
func (r *Runtime) StartContainer(ctx context.Context, uid string, c runtime.Container) (runtime.ContainerStatus, error) {
	status, err := r.startContainer(ctx, uid, &c)
	if err != nil {
		return runtime.ContainerStatus{}, fmt.Errorf("start container %s: %w", c.Name, err)
	}
	return status, nil
}

func (r *Runtime) startContainer(ctx context.Context, uid string, c *runtime.Container) (runtime.ContainerStatus, error) {
	none := runtime.ContainerStatus{}
	if err := errors.Join(checkName("sandbox UID", uid), checkName("container name", c.Name)); err != nil {
		return none, err
	}
	img, err := findImage(c.Image)
	if err != nil {
		return none, err
	}
	var spec podinit.Spec
	if err := podinit.ReadJSON(filepath.Join(r.dir(uid), podinit.SandboxFile), &spec); err != nil {
		return none, notFound(uid, err)
	}
	path, argv, env := r.command(img, &spec.Sandbox, c)
	id := make([]byte, 16)
	_, _ = rand.Read(id) // never fails
	podLogs := fmt.Sprintf("%s_%s_%s", spec.Namespace, spec.Name, uid)
	reply, err := r.ask(ctx, uid, &podinit.Request{Op: podinit.OpStart, Start: &podinit.Start{
		Status: runtime.ContainerStatus{
			Name: c.Name, ID: hex.EncodeToString(id), Image: c.Image, Attempt: c.Attempt,
			LogPath: filepath.Join(r.logs, podLogs, c.Name, strconv.Itoa(c.Attempt)+".log"),
		},
		Path: path, Argv: argv, Env: env, Dir: c.WorkingDir, Stdin: c.Stdin, TTY: c.TTY,
	}})
	if err != nil {
		return none, err
	}
	if reply.Status == nil {
		return none, errors.New("pod-init answered without a status")
	}
	all := []runtime.ContainerStatus{*reply.Status}
	r.translate(r.identity(uid).PID, all)
	return all[0], nil
}

// notFound makes a missing file of a sandbox a runtime.ErrNotFound.
func notFound(uid string, err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("sandbox %s: %w", uid, runtime.ErrNotFound)
	}
	return err
}

// ask sends one request to the pod's init and returns its one reply.
func (r *Runtime) ask(ctx context.Context, uid string, req *podinit.Request) (*podinit.Reply, error) {
	if !r.identity(uid).Alive() {
		return nil, fmt.Errorf("sandbox %s has no live init: %w", uid, runtime.ErrNotFound)
	}
	conn, err := podinit.Call(r.dir(uid), req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	reply, err := conn.Next()
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	return reply, err
}

// StopContainer sends SIGTERM, and SIGKILL to all that is left after the grace time; with no grace time at once. It returns when the
// container has ended. One that has ended, or is not there, is stopped already. When ctx ends it returns, the container is stopped all
// the same.
func (r *Runtime) StopContainer(ctx context.Context, uid, name string, grace time.Duration) error {
	if err := errors.Join(checkName("sandbox UID", uid), checkName("container name", name)); err != nil {
		return err
	}
	_, err := r.ask(ctx, uid, &podinit.Request{Op: podinit.OpStop, Name: name, Grace: max(grace, 0)})
	if err != nil && !errors.Is(err, runtime.ErrNotFound) {
		return fmt.Errorf("stop container %s: %w", name, err)
	}
	return nil // a pod that has ended has no containers that run
}
