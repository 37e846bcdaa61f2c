package nft

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"weft/internal/nft"
)

// groupNFTables is NFNLGRP_NFTABLES: the kernel tells its members of every change of the ruleset.
const groupNFTables = 7

// Watch returns a channel that gets a value after others than this Conn changed the table; several changes make one value. It must be
// called in the network namespace of the Conn. The channel is closed when ctx ends.
//
// What packets add to dynamic sets, and what times out there, is no change.
func (c *Conn) Watch(ctx context.Context, family nft.Family, name string) (<-chan struct{}, error) {
	fd, err := subscribe(c.port)
	if err != nil {
		return nil, fmt.Errorf("watch nf_tables: %w", err)
	}
	w := &watcher{file: os.NewFile(uintptr(fd), "nf_tables events"), own: c.port, family: families[family], table: name, wrote: c.wrote}
	if w.raw, err = w.file.SyscallConn(); err != nil {
		return nil, errors.Join(fmt.Errorf("watch nf_tables: %w", err), w.file.Close())
	}
	changed := make(chan struct{}, 1)
	stop := context.AfterFunc(ctx, func() { _ = w.file.Close() }) // ends a read under way
	go func() {
		defer close(changed)
		defer func() {
			if stop() {
				_ = w.file.Close()
			}
		}()
		w.run(changed)
	}()
	return changed, nil
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
	family uint8
	table  string

	touched bool // by the transaction that is being told
	wrote   func(message)
}

// run reads events until the socket is closed. An overflow may have lost ours: it counts as one.
func (w *watcher) run(changed chan<- struct{}) {
	b := make([]byte, 64<<10)
	for {
		n, err := w.receive(b)
		hit := errors.Is(err, unix.ENOBUFS)
		if err != nil && !hit {
			return
		}
		_ = split(b[:n], func(m message) error {
			hit = hit || w.ours(m)
			if m.typ == unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_NEWGEN && w.touched { // the end of a transaction
				w.wrote(m)
			}
			w.touched = hit
			return nil
		})
		if !hit {
			continue
		}
		select {
		case changed <- struct{}{}:
		default:
		}
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

// ours reports whether an event is about the table and caused by others. The first attribute of all objects is the table's name.
func (w *watcher) ours(m message) bool {
	if m.pid == w.own || m.typ>>8 != unix.NFNL_SUBSYS_NFTABLES || m.typ&0xff == unix.NFT_MSG_NEWGEN || len(m.data) < nfgenmsg {
		return false
	}
	if m.data[0] != w.family {
		return false
	}
	found := false
	_ = attributes(m.data[nfgenmsg:], func(typ uint16, v []byte) error {
		found = found || typ == unix.NFTA_TABLE_NAME && text(v) == w.table
		return nil
	})
	return found
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
