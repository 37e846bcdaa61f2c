package nft

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"

	"weft/internal/nft"
)

// groupNFTables is NFNLGRP_NFTABLES: the kernel tells its members of every change of the ruleset.
const groupNFTables = 7

// TableRef names a table.
type TableRef struct {
	Family nft.Family
	Name   string
}

// Watch is WatchAll of one table.
func (c *Conn) Watch(ctx context.Context, family nft.Family, name string) (<-chan struct{}, error) {
	all, err := c.WatchAll(ctx, TableRef{family, name})
	if err != nil {
		return nil, err
	}
	return all[0], nil
}

// WatchAll returns a channel for each table that gets a value after others than this Conn changed the table; several changes make one value.
// It must be called in the network namespace of the Conn. The channels are closed when ctx ends.
//
// What packets add to dynamic sets, and what times out there, is no change.
func (c *Conn) WatchAll(ctx context.Context, tables ...TableRef) ([]<-chan struct{}, error) {
	fd, err := subscribe(c.port)
	if err != nil {
		return nil, fmt.Errorf("watch nf_tables: %w", err)
	}
	w := &watcher{file: os.NewFile(uintptr(fd), "nf_tables events"), own: c.port, made: c.own.made, wrote: c.wrote}
	if w.raw, err = w.file.SyscallConn(); err != nil {
		return nil, errors.Join(fmt.Errorf("watch nf_tables: %w", err), w.file.Close())
	}
	out := make([]<-chan struct{}, len(tables))
	for i, t := range tables {
		changed := make(chan struct{}, 1)
		out[i], w.tables = changed, append(w.tables, watched{family: families[t.Family], table: t.Name, changed: changed})
	}
	c.watchers.add(w)
	stop := context.AfterFunc(ctx, func() { _ = w.file.Close() }) // ends a read under way
	go func() {
		defer func() {
			c.watchers.remove(w)
			for _, t := range w.tables {
				close(t.changed)
			}
			if stop() {
				_ = w.file.Close()
			}
		}()
		w.run()
	}()
	return out, nil
}

func subscribe(own uint32) (fd int, err error) {
	fd, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_NETFILTER)
	if err != nil {
		return -1, fmt.Errorf("open socket: %w", err)
	}
	steps := []func() error{
		func() error { return unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}) },
		func() error { return ignore(fd, own) },
		func() error {
			return unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, groupNFTables)
		},
	}
	buffer(fd, unix.SO_RCVBUFFORCE, unix.SO_RCVBUF, receiveBuffer)
	for _, f := range steps {
		if err := f(); err != nil {
			_ = unix.Close(fd)
			return -1, fmt.Errorf("set up socket: %w", err)
		}
	}
	return fd, nil
}

// ignore drops the events of our own changes before they fill the socket's buffer: a full programming makes a hundred thousand.
func ignore(fd int, port uint32) error {
	const pid = 12 // offset of nlmsg_pid; the events of a transaction come in datagrams of their own
	own := binary.BigEndian.Uint32(native.AppendUint32(nil, port))
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: pid},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: own, Jt: 0, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0xffffffff},
	}
	return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]})
}

type watcher struct {
	file   *os.File
	raw    syscall.RawConn
	own    uint32
	tables []watched

	made  func(generation uint32) bool // for us
	wrote func(message)
}

type watched struct {
	family  uint8
	table   string
	changed chan struct{}
	touched bool // by the transaction that is being told
}

// run reads events until the socket is closed. An overflow may have lost ours: it counts as one.
func (w *watcher) run() {
	b := make([]byte, 64<<10)
	for {
		n, err := w.receive(b)
		if errors.Is(err, unix.ENOBUFS) {
			w.tell()
			continue
		}
		if err != nil {
			return
		}
		_ = split(b[:n], func(m message) error {
			if m.typ == unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_NEWGEN {
				w.end(m)
			} else if t := w.table(m); t != nil {
				t.touched = true
			}
			return nil
		})
	}
}

// end is the end of a transaction.
func (w *watcher) end(m message) {
	touched := slices.ContainsFunc(w.tables, func(t watched) bool { return t.touched })
	tell := touched && !w.made(generationOf(m))
	if tell {
		w.wrote(m)
	}
	for i := range w.tables {
		if t := &w.tables[i]; t.touched {
			if t.touched = false; tell {
				t.tell()
			}
		}
	}
}

// tell says that any of the tables may have changed.
func (w *watcher) tell() {
	for i := range w.tables {
		w.tables[i].tell()
	}
}

func (t *watched) tell() {
	select {
	case t.changed <- struct{}{}:
	default:
	}
}

func (w *watcher) receive(b []byte) (n int, err error) {
	rerr := w.raw.Read(func(fd uintptr) bool {
		for {
			n, _, err = unix.Recvfrom(int(fd), b, 0)
			if errors.Is(err, unix.EINTR) {
				continue
			}
			return !errors.Is(err, unix.EAGAIN)
		}
	})
	if err := errors.Join(rerr, err); err != nil {
		return 0, err
	}
	return n, nil
}

// table is the one that an event is about, nil where it is another or we caused it. The first attribute of all objects is the table's name.
func (w *watcher) table(m message) (t *watched) {
	if m.pid == w.own || m.typ>>8 != unix.NFNL_SUBSYS_NFTABLES || len(m.data) < nfgenmsg {
		return nil
	}
	_ = attributes(m.data[nfgenmsg:], func(typ uint16, v []byte) error {
		if typ == unix.NFTA_TABLE_NAME && t == nil {
			i := slices.IndexFunc(w.tables, func(t watched) bool { return t.family == m.data[0] && t.table == text(v) })
			if i >= 0 {
				t = &w.tables[i]
			}
		}
		return nil
	})
	return t
}

// wrote notes who made a transaction.
func (c *Conn) wrote(m message) {
	if len(m.data) < nfgenmsg {
		return
	}
	pid, comm := uint32(0), ""
	_ = attributes(m.data[nfgenmsg:], func(typ uint16, v []byte) error {
		switch {
		case typ == unix.NFTA_GEN_PROC_PID && len(v) >= 4:
			pid = binary.BigEndian.Uint32(v)
		case typ == unix.NFTA_GEN_PROC_NAME:
			comm = text(v)
		}
		return nil
	})
	if comm != "" {
		who := fmt.Sprintf("pid %d (%s)", pid, comm)
		c.writer.Store(&who)
	}
}

// Writer is the process that last changed a table that is watched, "pid 711 (nft)"; "" before anybody did.
func (c *Conn) Writer() string {
	if who := c.writer.Load(); who != nil {
		return *who
	}
	return ""
}
