package kubelet

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"time"

	"k8s.io/cri-streaming/pkg/streaming/portforward"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"

	"weft/internal/kernel/netns"
	"weft/internal/runtime"
)

// exec runs a command in a container, its streams over SPDY or a WebSocket.
func (s *server) exec(w http.ResponseWriter, r *http.Request) {
	options, err := remotecommand.NewOptions(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	cmd := r.URL.Query()[execCommand]
	if len(cmd) == 0 {
		http.Error(w, "you must give a command to run", http.StatusBadRequest)
		return
	}
	run := executor{pods: s.Config.Pods, namespace: r.PathValue("namespace"), options: options}
	remotecommand.ServeExec(w, r, run, r.PathValue("pod"), r.PathValue("uid"), r.PathValue("container"), cmd, options,
		idleTimeout, createTimeout, remotecommand.SupportedStreamingProtocols)
}

// execCommand is the query parameter with the words of the command.
const execCommand = "command"

// attach follows the container's output as logs -f does, from now on. The process runtime keeps no container's input open, so a
// request that wants to write is refused.
func (s *server) attach(w http.ResponseWriter, r *http.Request) {
	options, err := remotecommand.NewOptions(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if options.Stdin {
		http.Error(w, "attach with stdin is not supported by this runtime: use exec, or attach without -i", http.StatusBadRequest)
		return
	}
	run := executor{pods: s.Config.Pods, namespace: r.PathValue("namespace"), options: options}
	remotecommand.ServeAttach(w, r, run, r.PathValue("pod"), r.PathValue("uid"), r.PathValue("container"), options,
		idleTimeout, createTimeout, remotecommand.SupportedStreamingProtocols)
}

// portForward copies between connections of the client and ports of the pod's loopback.
func (s *server) portForward(w http.ResponseWriter, r *http.Request) {
	options, err := portforward.NewV4Options(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	run := executor{pods: s.Config.Pods, namespace: r.PathValue("namespace")}
	portforward.ServePortForward(w, r, run, r.PathValue("pod"), r.PathValue("uid"), options, idleTimeout, createTimeout,
		portforward.SupportedProtocols)
}

// executor does for one namespace what the streaming library asks for.
type executor struct {
	pods      Pods
	namespace string
	options   *remotecommand.Options // a WebSocket has all streams, also those nobody asked for
}

// ExecInContainer runs a command. A command that ended otherwise than with 0 is an exitError.
func (e executor) ExecInContainer(ctx context.Context, pod, _, container string, cmd []string, in io.Reader, out, errOut io.WriteCloser,
	tty bool, resize <-chan remotecommand.TerminalSize, timeout time.Duration,
) error {
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream := runtime.Stream{TTY: tty, Resize: sizes(ctx, resize)}
	if e.options.Stdin && in != nil {
		stream.Stdin = in
	}
	if e.options.Stdout && out != nil {
		stream.Stdout = out
	}
	if e.options.Stderr && errOut != nil {
		stream.Stderr = errOut
	}
	code, err := e.pods.Exec(ctx, e.namespace, pod, container, cmd, stream)
	if err != nil {
		return err
	}
	if code != 0 {
		return exitError(code)
	}
	return nil
}

func sizes(ctx context.Context, from <-chan remotecommand.TerminalSize) <-chan runtime.Size {
	if from == nil {
		return nil
	}
	to := make(chan runtime.Size)
	go func() {
		defer close(to)
		for {
			select {
			case <-ctx.Done():
				return
			case size, ok := <-from:
				if !ok {
					return
				}
				select {
				case to <- runtime.Size{Width: size.Width, Height: size.Height}:
				case <-ctx.Done():
					return
				}
			}
		}
	}()
	return to
}

// exitError is a command's exit code, as the streaming library recognises it.
type exitError int

func (e exitError) Error() string   { return "exit code " + strconv.Itoa(int(e)) }
func (e exitError) String() string  { return e.Error() }
func (e exitError) Exited() bool    { return true }
func (e exitError) ExitStatus() int { return int(e) }

// AttachContainer copies the container's output until it ends or the client goes.
func (e executor) AttachContainer(ctx context.Context, pod, _, container string, _ io.Reader, out, errOut io.WriteCloser, _ bool,
	_ <-chan remotecommand.TerminalSize,
) error {
	l, err := e.pods.Log(e.namespace, pod, container, false)
	if err != nil {
		return err
	}
	o := logOptions{follow: true, tail: 0}
	to := sink{out: io.Discard, err: io.Discard}
	if e.options.Stdout && out != nil {
		to.out, to.err = out, out
	}
	if e.options.Stderr && errOut != nil {
		to.err = errOut
	}
	return copyLog(ctx, l, o, to)
}

// PortForward copies between stream and the pod's port until one side ends.
func (e executor) PortForward(ctx context.Context, pod, _ string, port int32, stream io.ReadWriteCloser) error {
	path, err := e.pods.Netns(e.namespace, pod)
	if err != nil {
		return err
	}
	conn, err := dialLoopback(ctx, path, port)
	if err != nil {
		return fmt.Errorf("connect to port %d in pod %s/%s: %w", port, e.namespace, pod, err)
	}
	defer conn.Close()
	done := make(chan error, 2)
	go func() {
		_, err := io.Copy(conn, stream)
		if half, ok := conn.(*net.TCPConn); ok && err == nil {
			err = half.CloseWrite()
		}
		done <- err
	}()
	go func() {
		_, err := io.Copy(stream, conn)
		if err == nil {
			err = io.EOF
		}
		done <- err
	}()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-done:
			if errors.Is(err, io.EOF) { // the pod closed: nothing more comes
				return nil
			}
			if err != nil {
				return fmt.Errorf("forward port %d: %w", port, err)
			}
		}
	}
}

// dialLoopback connects to a port inside a namespace, IPv4 first.
func dialLoopback(ctx context.Context, path string, port int32) (conn net.Conn, err error) {
	dial := func() error {
		var d net.Dialer
		for _, host := range []string{"127.0.0.1", "::1"} {
			if conn, err = d.DialContext(ctx, "tcp", net.JoinHostPort(host, strconv.Itoa(int(port)))); err == nil {
				return nil
			}
		}
		return err
	}
	if path == "" {
		return conn, dial()
	}
	err = netns.Do(path, dial)
	return conn, err
}
