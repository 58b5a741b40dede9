package capture

import (
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// queueBytes is what the kernel may hold for us while we are busy.
const queueBytes = 512 << 20

// Recorder records one interface.
type Recorder struct {
	socket   *os.File
	loopback bool
	keep     int // bytes of payload that may still be kept
	trace    Trace
	stopping atomic.Bool
	done     chan error
}

// Start records what crosses the interface called name, up to keep bytes of
// payload. It needs root, which a user has inside their own network namespace.
func Start(name string, keep int) (*Recorder, error) {
	iface, err := net.InterfaceByName(name)
	if err != nil {
		return nil, fmt.Errorf("capture: %w", err)
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("capture: %w", err)
	}
	// Without root outside a smaller queue must do; Stop says if it did not.
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, queueBytes) != nil {
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, queueBytes)
	}
	all := binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, unix.ETH_P_ALL))
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: iface.Index}); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("capture: %w", err)
	}
	r := &Recorder{
		socket:   os.NewFile(uintptr(fd), "capture"),
		loopback: iface.Flags&net.FlagLoopback != 0,
		keep:     keep,
		trace:    Trace{Payload: make(map[Flow][]byte), next: make(map[Flow]uint32), Other: make(map[uint16]int)},
		done:     make(chan error, 1),
	}
	go func() { r.done <- r.run() }()
	return r, nil
}

// Stop ends the recording and returns it with everything that crossed the
// interface before. It is an error when the kernel had to leave something out.
func (r *Recorder) Stop() (*Trace, error) {
	r.stopping.Store(true)
	r.socket.SetReadDeadline(time.Unix(0, 1)) // wakes run
	if err := <-r.done; err != nil {
		return nil, err
	}
	return &r.trace, nil
}

// run reads packets until Stop, and then those that are still queued.
func (r *Recorder) run() error {
	defer r.socket.Close()
	conn, err := r.socket.SyscallConn()
	if err != nil {
		return err
	}
	buf := make([]byte, 1<<17)
	for !r.stopping.Load() {
		conn.Read(func(fd uintptr) bool {
			r.drain(int(fd), buf)
			return r.stopping.Load()
		})
	}
	var dropped uint32
	err = conn.Control(func(fd uintptr) {
		r.drain(int(fd), buf)
		stats, e := unix.GetsockoptTpacketStats(int(fd), unix.SOL_PACKET, unix.PACKET_STATISTICS)
		if e == nil {
			dropped = stats.Drops
		}
	})
	if err == nil && dropped > 0 {
		err = fmt.Errorf("capture: the kernel dropped %d packets", dropped)
	}
	return err
}

// drain reads what is queued.
func (r *Recorder) drain(fd int, buf []byte) {
	for {
		n, from, err := unix.Recvfrom(fd, buf, 0)
		if err != nil {
			return
		}
		at := from.(*unix.SockaddrLinklayer)
		if r.loopback && at.Pkttype == unix.PACKET_OUTGOING {
			continue // it comes again as it arrives
		}
		etherType := binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, at.Protocol))
		r.keep -= r.trace.add(etherType, buf[:n], r.keep)
	}
}
