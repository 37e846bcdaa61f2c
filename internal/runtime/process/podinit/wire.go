package podinit

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"weft/internal/runtime"
)

// Op is what the agent asks for. A connection carries one request and its replies, each a line of JSON.
type Op string

// The operations.
const (
	OpStart Op = "start" // one reply with Status
	OpStop  Op = "stop"  // one reply, when the container has ended
	OpExec  Op = "exec"  // descriptors 0, 1, 2 come along; a reply when started, one with ExitCode; closing the connection kills
	OpWatch Op = "watch" // an empty reply now and after every exit, until the connection is closed
)

// Request is one operation.
type Request struct {
	Op    Op
	Name  string        // container, of stop and exec
	Grace time.Duration // of stop: between SIGTERM and SIGKILL
	Start *Start
	Exec  *Exec
}

// Start asks for a new container.
type Start struct {
	Status runtime.ContainerStatus // Name, ID, Image, Attempt and LogPath are set
	Path   string                  // of the program, "" looks for Argv[0] in the PATH of Env
	Argv   []string
	Env    []string // the whole environment
	Dir    string   // working directory, "" is /
	Stdin  bool     // an open standard input instead of an empty one
	TTY    bool
}

// Exec asks for a command in the environment of a running container.
type Exec struct {
	Argv []string
	TTY  bool // descriptor 0 is a terminal and becomes the controlling one
}

// Reply answers a Request.
type Reply struct {
	Error    string `json:",omitempty"`
	Kind     string `json:",omitempty"` // which known error it is
	Status   *runtime.ContainerStatus
	ExitCode *int
}

// kinds names the errors that survive the socket.
var kinds = map[string]error{
	"not-found":  runtime.ErrNotFound,
	"no-program": exec.ErrNotFound,
}

// failure makes the reply for an error.
func failure(err error) Reply {
	r := Reply{Error: err.Error()}
	for kind, known := range kinds {
		if errors.Is(err, known) {
			r.Kind = kind
		}
	}
	return r
}

// remoteError is an error that happened in the pod's init.
type remoteError struct {
	text string
	kind error
}

func (e *remoteError) Error() string { return e.text }
func (e *remoteError) Unwrap() error { return e.kind }

// Err is the reply's error, nil when there is none.
func (r *Reply) Err() error {
	if r.Error == "" {
		return nil
	}
	return &remoteError{text: r.Error, kind: kinds[r.Kind]}
}

// listen makes the pod's socket. A socket's path may have 107 characters, fewer than a directory's: go through a descriptor.
func listen(dir string) (net.Listener, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("open pod directory: %w", err)
	}
	defer d.Close()
	if err := os.Remove(filepath.Join(dir, socketFile)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("remove old socket: %w", err)
	}
	l, err := net.Listen("unix", fmt.Sprintf("/proc/self/fd/%d/%s", d.Fd(), socketFile))
	if err != nil {
		return nil, fmt.Errorf("listen for the agent: %w", err)
	}
	return l, nil
}

// Conn is one end of a connection between the agent and a pod's init.
type Conn struct {
	*net.UnixConn
	Files []*os.File // received descriptors, the receiver closes them
	dec   *json.Decoder
}

func newConn(c *net.UnixConn) *Conn {
	conn := &Conn{UnixConn: c}
	conn.dec = json.NewDecoder(conn)
	return conn
}

// ended makes the error of a connection to an init that has died, or is dying, a runtime.ErrNotFound: alive, it never stops to listen
// and never closes without a reply.
func ended(err error) error {
	for _, sign := range []error{os.ErrNotExist, unix.ECONNREFUSED, unix.ECONNRESET, unix.EPIPE, io.EOF} {
		if errors.Is(err, sign) {
			return fmt.Errorf("pod-init has ended (%w): %w", err, runtime.ErrNotFound)
		}
	}
	return err
}

// Call connects to the init of the pod in dir and sends the request with the files' descriptors. A pod that has ended is a
// runtime.ErrNotFound, here and in Next.
func Call(dir string, req *Request, files ...*os.File) (*Conn, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("open pod directory: %w", ended(err))
	}
	defer d.Close()
	addr := &net.UnixAddr{Net: "unix", Name: fmt.Sprintf("/proc/self/fd/%d/%s", d.Fd(), socketFile)}
	c, err := net.DialUnix("unix", nil, addr)
	if err != nil {
		return nil, fmt.Errorf("connect to pod-init: %w", ended(err))
	}
	conn := newConn(c)
	if err := conn.send(req, files); err != nil {
		_ = c.Close()
		return nil, fmt.Errorf("send to pod-init: %w", ended(err))
	}
	return conn, nil
}

// send writes v as one line, the descriptors with its first byte.
func (c *Conn) send(v any, files []*os.File) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	b = append(b, '\n')
	if len(files) > 0 {
		fds := make([]int, len(files))
		for i, f := range files {
			fds[i] = int(f.Fd())
		}
		if _, _, err := c.WriteMsgUnix(b[:1], unix.UnixRights(fds...), nil); err != nil {
			return err
		}
		b = b[1:]
	}
	_, err = c.Write(b)
	return err
}

// Read reads bytes and keeps the descriptors that come with them.
func (c *Conn) Read(p []byte) (int, error) {
	oob := make([]byte, unix.CmsgSpace(3*4)) // int descriptors for 0, 1 and 2
	n, oobn, _, _, err := c.ReadMsgUnix(p, oob)
	if oobn > 0 {
		if err := c.keep(oob[:oobn]); err != nil {
			return 0, err
		}
	}
	return max(n, 0), err // -1 with an error
}

func (c *Conn) keep(oob []byte) error {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return fmt.Errorf("parse control message: %w", err)
	}
	for i := range messages {
		fds, err := unix.ParseUnixRights(&messages[i])
		if err != nil {
			return fmt.Errorf("parse descriptors: %w", err)
		}
		for _, fd := range fds {
			c.Files = append(c.Files, os.NewFile(uintptr(fd), "received"))
		}
	}
	return nil
}

// Next reads the next reply. A reply that is an error is returned as one.
func (c *Conn) Next() (*Reply, error) {
	var r Reply
	if err := c.dec.Decode(&r); err != nil {
		return nil, fmt.Errorf("read from pod-init: %w", ended(err))
	}
	return &r, r.Err()
}
