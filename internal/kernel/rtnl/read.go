package rtnl

import (
	"context"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"weft/internal/kernel/rtnl/wire"
	"weft/internal/netstate"
)

// Read returns what there is of ours, and of others' what stands where a wanted object shall be: a link with a wanted link's name, with
// all that is on it, and routes with a wanted route's key. What want leaves open (a MAC "", an MTU 0) is left open in the answer too. So
// Diff(want, Read(want)) is what is left to do.
func (h *Handle) Read(ctx context.Context, want netstate.State) (netstate.State, error) {
	release, err := h.lock(ctx)
	if err != nil {
		return netstate.State{}, err
	}
	defer release()
	r := reader{h: h, want: want, have: netstate.New(), devs: map[int]string{}, adopted: map[string]bool{}}
	for _, step := range []func() error{r.links, r.addrs, r.neighs, r.fdb, r.routes} {
		if err := step(); err != nil {
			return netstate.State{}, err
		}
	}
	h.remember(&r)
	return r.have, nil
}

// reader is the work of one Read.
type reader struct {
	h       *Handle
	want    netstate.State
	have    netstate.State
	table   links
	devs    map[int]string  // links whose objects all count as ours, by index
	adopted map[string]bool // those of them that do not bear our mark yet
}

// remember keeps what Watch needs.
func (h *Handle) remember(r *reader) {
	h.known, h.wanted = r.have.Like(r.want), r.want
	h.injuries = injuries{}
	h.indexes = make(map[int]string, len(r.table.byIndex))
	for i, l := range r.table.byIndex {
		h.indexes[i] = l.Name
	}
	h.ours, h.interest = map[string]bool{}, map[string]bool{}
	for _, name := range r.devs {
		h.ours[name], h.interest[name] = true, true
	}
	for id, o := range r.want.All() {
		switch {
		case id.Kind == netstate.KindLink:
			h.interest[id.Key] = true
			if l, ok := o.(netstate.Link); ok && l.VXLAN.Dev != "" {
				h.interest[l.VXLAN.Dev] = true
			}
		case o.On() != "":
			h.interest[o.On()] = true
		}
	}
}

func (r *reader) links() (err error) {
	if r.table, err = r.h.dumpLinks(); err != nil {
		return err
	}
	for name, l := range r.table.byName {
		w, wanted := r.wantedLink(name)
		if !l.Owned() && !wanted {
			continue
		}
		r.devs[l.index] = name
		if !l.Owned() {
			r.adopted[name] = true
		}
		o := l.Link
		if o.Type == netstate.TypeVeth && wanted {
			if o.Peer, err = r.h.peer(l, w.Peer); err != nil {
				return err
			}
		}
		if wanted && w.MAC == "" {
			o.MAC = ""
		}
		if wanted && w.MTU == 0 {
			o.MTU = 0
		}
		if o.Master == "" {
			o.Port = netstate.Port{}
		}
		r.have.Add(o)
	}
	return nil
}

func (r *reader) wantedLink(name string) (netstate.Link, bool) {
	o, ok := r.want.Get(netstate.ID{Kind: netstate.KindLink, Key: name})
	if !ok {
		return netstate.Link{}, false
	}
	l, ok := o.(netstate.Link)
	return l, ok
}

// peer returns the wanted peer if that is where the veth's other end really is: in the namespace at the wanted path. The link itself
// does not tell the path.
func (h *Handle) peer(l *link, want netstate.Peer) (netstate.Peer, error) {
	if l.peerNS == sameNS {
		if want.MAC == "" {
			l.Peer.MAC = ""
		}
		return l.Peer, nil
	}
	if want.Netns == "" {
		return netstate.Peer{}, nil // the inner end of a pair, or one whose other end was moved away
	}
	f, err := os.Open(want.Netns)
	if err != nil {
		return netstate.Peer{}, nil // the namespace is gone, so the peer is not in it
	}
	defer f.Close()
	id, err := h.namespaceID(int(f.Fd()))
	if err != nil {
		return netstate.Peer{}, fmt.Errorf("identify network namespace %s: %w", want.Netns, err)
	}
	if id != l.peerNS {
		return netstate.Peer{}, nil
	}
	return want, nil
}

// namespaceID returns the ID that the handle's namespace has for the one of the descriptor; it is negative when there is none.
func (h *Handle) namespaceID(fd int) (int32, error) {
	var b wire.Buffer
	b.Begin(unix.RTM_GETNSID, 0, make([]byte, 4)) // struct rtgenmsg, padded
	b.U32(unix.NETNSA_FD, uint32(fd))
	b.End()
	m, err := h.conn.Get(&b)
	if err != nil {
		return 0, err
	}
	id := int32(unix.NETNSA_NSID_NOT_ASSIGNED)
	if len(m.Data) >= 4 {
		for typ, v := range wire.Attrs(m.Data[4:]) {
			if typ == unix.NETNSA_NSID {
				id = int32(wire.U32(v))
			}
		}
	}
	return id, nil
}

// ours names the links whose objects count as ours.
func (r *reader) ours(index int) (string, bool) {
	name, ok := r.devs[index]
	return name, ok
}

// all names every link.
func (r *reader) all(index int) (string, bool) {
	l, ok := r.table.byIndex[index]
	if !ok {
		return "", false
	}
	return l.Name, true
}

// keep adds the object if it is on a link of ours or wanted.
func (r *reader) keep(o netstate.Object, index int) {
	a, isAddr := o.(netstate.Addr)
	if _, ours := r.devs[index]; ours && !(isAddr && ownDoing(a)) {
		r.have.Add(o)
		return
	}
	if _, wanted := r.want.Get(netstate.IDOf(o)); wanted {
		r.have.Add(o)
	}
}

func (r *reader) addrs() error {
	var b wire.Buffer
	b.Begin(unix.RTM_GETADDR, 0, make([]byte, unix.SizeofIfAddrmsg))
	b.End()
	msgs, err := r.h.conn.Dump(&b)
	if err != nil {
		return fmt.Errorf("read addresses: %w", err)
	}
	for _, m := range msgs {
		if a, ok := decodeAddr(m, r.all); ok {
			r.keep(a, int(wire.U32(m.Data[4:])))
		}
	}
	return nil
}

func (r *reader) neighs() error {
	var b wire.Buffer
	b.Begin(unix.RTM_GETNEIGH, 0, make([]byte, unix.SizeofNdMsg))
	b.End()
	msgs, err := r.h.conn.Dump(&b)
	if err != nil {
		return fmt.Errorf("read neighbours: %w", err)
	}
	for _, m := range msgs {
		if n, ok := decodeNeigh(m, r.all, false); ok {
			r.keep(n, int(wire.U32(m.Data[4:])))
		}
	}
	return nil
}

// fdb reads the entries of each VXLAN device of ours.
func (r *reader) fdb() error {
	for index := range r.devs {
		if r.table.byIndex[index].Type != netstate.TypeVXLAN {
			continue
		}
		var b wire.Buffer
		header := make([]byte, unix.SizeofNdMsg)
		header[0] = unix.AF_BRIDGE
		b.Begin(unix.RTM_GETNEIGH, 0, header)
		b.U32(unix.NDA_IFINDEX, uint32(index))
		b.End()
		msgs, err := r.h.conn.Dump(&b)
		if err != nil {
			return fmt.Errorf("read forwarding entries of %s: %w", r.devs[index], err)
		}
		for _, m := range msgs {
			if f, ok := decodeNeigh(m, r.ours, false); ok {
				r.have.Add(f)
			}
		}
	}
	return nil
}

// routes reads our routes, which the kernel picks out by protocol. Only when a wanted one is not among them does it look, table by
// table, for others' routes in its place; that and the first read are the only times that a full table costs anything.
func (r *reader) routes() error {
	for _, family := range []byte{unix.AF_INET, unix.AF_INET6} {
		if err := r.dumpRoutes(family, 0, func(o netstate.Route) bool { return true }); err != nil {
			return err
		}
	}
	type place struct {
		family byte
		table  int
	}
	missing := map[place]bool{}
	for id, o := range r.want.All() {
		w, ok := o.(netstate.Route)
		if !ok {
			continue
		}
		if _, have := r.have.Get(id); !have {
			missing[place{familyOf(w.Dst.Addr()), w.Table}] = true
		}
	}
	if len(r.adopted) > 0 {
		missing[place{unix.AF_INET, 0}], missing[place{unix.AF_INET6, 0}] = true, true
	}
	for p := range missing {
		table := p.table
		if table == 0 {
			table = unix.RT_TABLE_MAIN
		}
		if err := r.dumpRoutes(p.family, table, r.inTheWay); err != nil {
			return err
		}
	}
	return nil
}

// inTheWay reports whether another's route stands in the place of a wanted one, or was left on a link that we take over. What the kernel
// made itself, with an address, is never in the way: adding ours there fails and says so.
func (r *reader) inTheWay(o netstate.Route) bool {
	if o.Proto == unix.RTPROT_KERNEL || o.Proto == 0 {
		return false
	}
	_, wanted := r.want.Get(netstate.IDOf(o))
	return wanted || r.adopted[o.Dev]
}

// dumpRoutes adds the routes of the family that keep says yes to: our own of all tables, or with a table all of that one.
func (r *reader) dumpRoutes(family byte, table int, keep func(netstate.Route) bool) error {
	var b wire.Buffer
	header := make([]byte, unix.SizeofRtMsg)
	header[0] = family
	if table == 0 {
		header[5] = netstate.RouteProtocol
	}
	b.Begin(unix.RTM_GETROUTE, 0, header)
	if table != 0 {
		b.U32(unix.RTA_TABLE, uint32(table))
	}
	b.End()
	msgs, err := r.h.conn.Dump(&b)
	if err != nil && !(table != 0 && wire.IsErrno(err, unix.ENOENT)) { // no such table yet
		return fmt.Errorf("read routes: %w", err)
	}
	for _, m := range msgs {
		if o, ok := decodeRoute(m, r.all); ok && keep(o) {
			r.have.Add(o)
		}
	}
	return nil
}
