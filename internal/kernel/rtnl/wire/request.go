package wire

import (
	"errors"

	"golang.org/x/sys/unix"
)

// Error is the kernel's refusal of a request.
type Error struct {
	Errno   unix.Errno
	Message string // the kernel's explanation, or ""
}

// Error is the errno's text with the kernel's explanation.
func (e *Error) Error() string {
	if e.Message == "" {
		return e.Errno.Error()
	}
	return e.Errno.Error() + " (" + e.Message + ")"
}

// Unwrap returns the errno.
func (e *Error) Unwrap() error { return e.Errno }

// ackError reads an NLMSG_ERROR: nil for an acknowledgement.
func ackError(m Message) error {
	if len(m.Data) < 4 {
		return ErrMalformed
	}
	errno := -int32(order.Uint32(m.Data))
	if errno == 0 {
		return nil
	}
	e := &Error{Errno: unix.Errno(errno)}
	const header = 4 + unix.SizeofNlMsghdr
	if m.Flags&unix.NLM_F_ACK_TLVS != 0 && len(m.Data) > header {
		for typ, data := range Attrs(m.Data[header:]) {
			if typ == unix.NLMSGERR_ATTR_MSG {
				e.Message = Text(data)
			}
		}
	}
	return e
}

// Batch sends the buffer's messages in one datagram. The kernel works them off in order and does not stop at one that fails; errs
// has an entry for each message, nil for success. An error of Batch itself leaves open which were done.
func (c *Conn) Batch(b *Buffer) (errs []error, err error) {
	if b.Count() == 0 {
		return nil, nil
	}
	first := c.next(b.Count())
	b.stamp(first, c.port)
	if err := c.send(b.bytes); err != nil {
		return nil, err
	}
	errs = make([]error, b.Count())
	for {
		msgs, err := c.Receive()
		if err != nil {
			return nil, err
		}
		for _, m := range msgs {
			i := m.Seq - first
			if i >= uint32(len(errs)) || m.Type != unix.NLMSG_ERROR {
				continue // left over from an earlier call that was given up
			}
			errs[i] = ackError(m)
			if int(i) == len(errs)-1 {
				return errs, nil
			}
		}
	}
}

// next reserves n sequence numbers.
func (c *Conn) next(n int) uint32 {
	first := c.seq + 1
	c.seq += uint32(n)
	return first
}

// Get sends the buffer's one message and returns the answer, which must be a single message.
func (c *Conn) Get(b *Buffer) (Message, error) {
	seq := c.next(1)
	b.stamp(seq, c.port)
	if err := c.send(b.bytes); err != nil {
		return Message{}, err
	}
	var answer Message
	for {
		msgs, err := c.Receive()
		if err != nil {
			return Message{}, err
		}
		for _, m := range msgs {
			switch {
			case m.Seq != seq:
			case m.Type == unix.NLMSG_ERROR:
				return answer, ackError(m)
			default:
				m.Data = append([]byte(nil), m.Data...)
				answer = m
			}
		}
	}
}

// dumpTries bounds how often a dump is begun anew because the table changed under it.
const dumpTries = 5

// Dump sends the buffer's one message as a dump request and returns all answers. A dump that changes interrupted is begun anew; after
// some tries the last one is returned as it is, since whoever makes so many changes causes events that make the caller look again.
func (c *Conn) Dump(b *Buffer) ([]Message, error) {
	for try := 1; ; try++ {
		msgs, interrupted, err := c.dump(b)
		if err != nil || !interrupted || try == dumpTries {
			return msgs, err
		}
	}
}

func (c *Conn) dump(b *Buffer) (all []Message, interrupted bool, err error) {
	seq := c.next(1)
	order.PutUint32(b.bytes[8:], seq)
	order.PutUint32(b.bytes[12:], c.port)
	order.PutUint16(b.bytes[6:], order.Uint16(b.bytes[6:])|unix.NLM_F_DUMP)
	if err := c.send(b.bytes); err != nil {
		return nil, false, err
	}
	for {
		n, err := c.recv(c.buffer())
		if err != nil {
			return nil, false, err
		}
		msgs, err := split(append([]byte(nil), c.buf[:n]...))
		if err != nil {
			return nil, false, err
		}
		for _, m := range msgs {
			if m.Seq != seq {
				continue
			}
			interrupted = interrupted || m.Flags&unix.NLM_F_DUMP_INTR != 0
			switch m.Type {
			case unix.NLMSG_DONE: // with the negative errno of a dump that failed half-way
				if len(m.Data) >= 4 && int32(order.Uint32(m.Data)) < 0 {
					return nil, false, ackError(m)
				}
				return all, interrupted, nil
			case unix.NLMSG_ERROR:
				if err := ackError(m); err != nil {
					return nil, false, err
				}
			default:
				all = append(all, m)
			}
		}
	}
}

// IsErrno reports whether the kernel refused with one of the errnos.
func IsErrno(err error, errnos ...unix.Errno) bool {
	for _, e := range errnos {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}
