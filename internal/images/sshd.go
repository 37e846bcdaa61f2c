package images

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"
)

// banner identifies the server (RFC 4253, section 4.2): the version has no space or minus, the comment says what this is.
const banner = "SSH-2.0-weft the sshd image is a stand-in without logins\r\n"

// reason is told to a client that wants to go on.
const reason = "weft's sshd image only shows that a port is open: it has no logins. Use kubectl exec."

// patience is how long a silent connection is kept, as sshd's LoginGraceTime.
const patience = 2 * time.Minute

// serveSSH stands in for sshd: it identifies itself, waits, and says goodbye to a client that identifies itself in turn.
func serveSSH(l net.Listener, out io.Writer) error {
	for {
		c, err := l.Accept()
		if err != nil {
			var temporary interface{ Timeout() bool }
			if errors.As(err, &temporary) && temporary.Timeout() {
				continue
			}
			return err
		}
		go func() {
			defer c.Close()
			client := peer(c.RemoteAddr().String())
			fmt.Fprintf(out, "Connection from %s port %d\n", client.Addr(), client.Port())
			how := "closed by client"
			if err := greet(c); err != nil {
				how = err.Error()
			}
			fmt.Fprintf(out, "Connection from %s port %d ended: %s\n", client.Addr(), client.Port(), how)
		}()
	}
}

// greet exchanges identifications and disconnects. It returns nil when the client left first.
func greet(c net.Conn) error {
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return fmt.Errorf("set deadline: %w", err)
	}
	if _, err := io.WriteString(c, banner); err != nil {
		return fmt.Errorf("send identification: %w", err)
	}
	in := bufio.NewReaderSize(c, 256) // RFC 4253: at most 255 characters
	line, err := in.ReadSlice('\n')
	switch {
	case errors.Is(err, io.EOF):
		return nil
	case err != nil:
		return fmt.Errorf("read identification: %w", err)
	case !strings.HasPrefix(string(line), "SSH-"):
		return errors.New("client is no SSH client")
	}
	if _, err := c.Write(disconnect(reason)); err != nil {
		return fmt.Errorf("send disconnect: %w", err)
	}
	return errors.New("told that there are no logins")
}

// disconnect is the message SSH_MSG_DISCONNECT (RFC 4253, section 11.1) as a packet before key exchange (section 6): length, length of
// the padding, message, padding to a multiple of 8.
func disconnect(text string) []byte {
	const (
		msgDisconnect = 1
		byApplication = 11
		block         = 8
		minPadding    = 4
	)
	message := []byte{msgDisconnect}
	message = binary.BigEndian.AppendUint32(message, byApplication)
	message = binary.BigEndian.AppendUint32(message, uint32(len(text)))
	message = append(message, text...)
	message = binary.BigEndian.AppendUint32(message, 0) // language tag
	padding := block - (4+1+len(message))%block
	if padding < minPadding {
		padding += block
	}
	packet := binary.BigEndian.AppendUint32(nil, uint32(1+len(message)+padding))
	packet = append(packet, byte(padding))
	packet = append(packet, message...)
	return append(packet, make([]byte, padding)...)
}
