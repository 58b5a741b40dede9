package netns

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// control is the socket between Run and inside: one JSON message a packet,
// with file descriptors. Both ends are this program, of this version.
type control struct {
	conn *net.UnixConn

	mu sync.Mutex // held while sending
}

const (
	maxMessage = 64 << 10 // bytes of one message
	maxFDs     = 8        // of one message
)

type kind string

const (
	// From inside to Run.
	kindReady  kind = "ready"  // Road, MAC, Peer; fds: the interface, then the resolver's sockets
	kindFailed kind = "failed" // Text, Denied: there will be no namespace
	kindDialed kind = "dialed" // ID, Text if it failed, else an fd
	kindOpen   kind = "open"   // Port: the command listens there
	kindNotify kind = "notify" // Text for the service manager
	kindSay    kind = "say"    // Text for the user
	kindExit   kind = "exit"   // Code; nothing is left in the namespace

	// From Run to inside.
	kindPrepare kind = "prepare" // Setup: make the namespace; the first message
	kindStart   kind = "start"   // Ports: run the command, and report when it listens there
	kindDial    kind = "dial"    // ID, Port: connect to the command
	kindSignal  kind = "signal"  // Code: for the command
	kindStop    kind = "stop"    // Grace: end everything
)

type message struct {
	Kind   kind
	Setup  setup         `json:",omitzero"`
	Ports  []uint16      `json:",omitempty"`
	Text   string        `json:",omitempty"`
	Denied bool          `json:",omitempty"`
	Road   road          `json:",omitempty"`
	MAC    []byte        `json:",omitempty"` // of the end that the packet socket is at
	Peer   []byte        `json:",omitempty"` // of the command's end
	ID     uint64        `json:",omitempty"`
	Port   uint16        `json:",omitempty"`
	Code   int           `json:",omitempty"`
	Grace  time.Duration `json:",omitempty"`
}

// setup is how inside makes the namespace.
type setup struct {
	Interface string
	Addr      netip.Addr
	Trust     []byte `json:",omitempty"`
	NoTUN     bool   `json:",omitempty"`
}

// road is which kind of interface a namespace has.
type road string

const (
	roadTUN  road = "tun"
	roadVeth road = "veth"
)

// newControl returns a control for Run and the file that inside gets.
func newControl() (*control, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("socket pair: %w", err)
	}
	theirs := os.NewFile(uintptr(fds[1]), "control")
	c, err := openControl(os.NewFile(uintptr(fds[0]), "control"))
	if err != nil {
		theirs.Close()
		return nil, nil, err
	}
	return c, theirs, nil
}

// openControl makes a control of f, which it closes.
func openControl(f *os.File) (*control, error) {
	defer f.Close()
	conn, err := net.FileConn(f)
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	u, ok := conn.(*net.UnixConn)
	if !ok {
		conn.Close()
		return nil, errors.New("control socket is no Unix socket")
	}
	return &control{conn: u}, nil
}

func (c *control) send(m message, fds ...int) error {
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	_, _, err = c.conn.WriteMsgUnix(b, oob, nil)
	return err
}

// receive returns the next message and the descriptors with it, which the
// caller owns. io.EOF means that the other process is gone.
func (c *control) receive() (message, []int, error) {
	b := make([]byte, maxMessage)
	oob := make([]byte, unix.CmsgSpace(maxFDs*4))
	n, oobn, _, _, err := c.conn.ReadMsgUnix(b, oob)
	if err != nil {
		return message{}, nil, err
	}
	var fds []int
	msgs, err := unix.ParseSocketControlMessage(oob[:oobn])
	for i := range msgs {
		if got, err := unix.ParseUnixRights(&msgs[i]); err == nil {
			fds = append(fds, got...)
		}
	}
	var m message
	if err == nil {
		err = json.Unmarshal(b[:n], &m)
	}
	if err != nil {
		closeAll(fds)
		return message{}, nil, fmt.Errorf("control message: %w", err)
	}
	return m, fds, nil
}

func closeAll(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}
