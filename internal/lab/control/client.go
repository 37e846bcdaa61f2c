package control

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Client talks to one host.
type Client struct {
	socket string
	http   *http.Client
}

// New returns a client of the host whose init listens on socket.
func New(socket string) *Client {
	c := &Client{socket: socket}
	c.http = &http.Client{Transport: &http.Transport{
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return c.dial(ctx) },
		DisableKeepAlives: true,
	}}
	return c
}

func (c *Client) dial(ctx context.Context) (*net.UnixConn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "unix", c.socket)
	if err != nil {
		return nil, err
	}
	return conn.(*net.UnixConn), nil
}

// PID is the process id of the host's init in the caller's PID namespace: the kernel translates what the socket remembers of
// its listener (SO_PEERCRED, unix(7)). An error says that the host is gone.
func (c *Client) PID(ctx context.Context) (int, error) {
	conn, err := c.dial(ctx)
	if err != nil {
		return 0, fmt.Errorf("connect to host: %w", err)
	}
	defer conn.Close()
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, fmt.Errorf("read peer of socket: %w", err)
	}
	var cred *unix.Ucred
	var credErr error
	err = raw.Control(func(fd uintptr) { cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	if err = errors.Join(err, credErr); err != nil {
		return 0, fmt.Errorf("read peer of socket: %w", err)
	}
	if cred.Pid <= 0 {
		return 0, errors.New("host is in another PID namespace: run the command where the lab was made")
	}
	return int(cred.Pid), nil
}

// Programs lists the programs in the order of their first start.
func (c *Client) Programs(ctx context.Context) ([]Status, error) {
	var list []Status
	body, err := c.do(ctx, http.MethodGet, "/programs", nil)
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(body, &list); err != nil {
		return nil, fmt.Errorf("decode programs: %w", err)
	}
	return list, nil
}

// Start runs a program. An empty Argv runs it as the last time.
func (c *Client) Start(ctx context.Context, program string, s Spec) error {
	body, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("encode program: %w", err)
	}
	_, err = c.do(ctx, http.MethodPost, "/programs/"+url.PathEscape(program)+"/start", body)
	return err
}

// Stop ends a program with SIGTERM, with SIGKILL after five seconds, and waits for its end. A program that does not run is no error.
func (c *Client) Stop(ctx context.Context, program string) error {
	_, err := c.do(ctx, http.MethodPost, "/programs/"+url.PathEscape(program)+"/stop", nil)
	return err
}

// Signal sends a signal to a program; after SIGKILL it waits for the end.
func (c *Client) Signal(ctx context.Context, program string, sig syscall.Signal) error {
	_, err := c.do(ctx, http.MethodPost, "/programs/"+url.PathEscape(program)+"/signal?signal="+strconv.Itoa(int(sig)), nil)
	return err
}

// ReadFile reads a file of the host, errors.Is(err, fs.ErrNotExist) when there is none.
func (c *Client) ReadFile(ctx context.Context, path string) ([]byte, error) {
	return c.do(ctx, http.MethodGet, "/file?path="+url.QueryEscape(path), nil)
}

// WriteFile puts a file on the host, mode 0600, with the directories above it.
func (c *Client) WriteFile(ctx context.Context, path string, data []byte) error {
	_, err := c.do(ctx, http.MethodPut, "/file?path="+url.QueryEscape(path), data)
	return err
}

func (c *Client) do(ctx context.Context, method, target string, body []byte) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://host"+target, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("make request: %w", err)
	}
	res, err := c.http.Do(req)
	if err != nil {
		if ue, ok := errors.AsType[*url.Error](err); ok {
			err = ue.Err
		}
		return nil, fmt.Errorf("ask host: %w", err)
	}
	defer res.Body.Close()
	out, err := io.ReadAll(res.Body)
	if err != nil {
		return nil, fmt.Errorf("read host's answer: %w", err)
	}
	if res.StatusCode >= 400 {
		return nil, &remote{strings.TrimSpace(string(out)), codes[res.Header.Get("X-Error")]}
	}
	return out, nil
}

// Dial opens a connection from the host: network is one of net.Dial's.
func (c *Client) Dial(ctx context.Context, network, addr string) (net.Conn, error) {
	conn, err := c.dial(ctx)
	if err != nil {
		return nil, fmt.Errorf("connect to host: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	r, err := request(ctx, conn, network, addr)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	return &dialed{conn, r}, nil
}

func request(ctx context.Context, conn net.Conn, network, addr string) (*bufio.Reader, error) {
	target := "http://host/dial?network=" + url.QueryEscape(network) + "&addr=" + url.QueryEscape(addr)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return nil, fmt.Errorf("make request: %w", err)
	}
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", upgrade)
	if err := req.Write(conn); err != nil {
		return nil, fmt.Errorf("ask host: %w", err)
	}
	r := bufio.NewReader(conn)
	res, err := http.ReadResponse(r, req)
	if err != nil {
		return nil, fmt.Errorf("read host's answer: %w", err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusSwitchingProtocols {
		text, _ := io.ReadAll(io.LimitReader(res.Body, 4096))
		return nil, &remote{strings.TrimSpace(string(text)), codes[res.Header.Get("X-Error")]}
	}
	return r, nil
}

// dialed is a connection whose first bytes may already be in the reader.
type dialed struct {
	*net.UnixConn
	r *bufio.Reader
}

// Read implements net.Conn.
func (d *dialed) Read(b []byte) (int, error) { return d.r.Read(b) }
