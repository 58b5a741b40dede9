// Package delay puts distance between two processes on one machine: a TCP
// forwarder that hands every byte on a fixed time after it came, each way,
// without limiting how many are on their way.
// Not here: loss, jitter, or a limit on bandwidth.
package delay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"
)

// rate is the bandwidth, bytes per second, that a direction always has room for.
const rate = 400e6

// minRing and maxRing bound what one direction holds, bytes.
const (
	minRing = 1 << 20
	maxRing = 64 << 20
)

// maxWrite is the most that is written at once, bytes, so that what was
// written makes room early.
const maxWrite = 256 << 10

// Forwarder forwards connections from its own address to another one.
type Forwarder struct {
	listener *net.TCPListener
	to       netip.AddrPort
	delay    time.Duration

	stop context.CancelFunc
	wg   sync.WaitGroup
}

// Listen forwards connections made to the address at, where port 0 means any,
// to the address to. Each direction of each connection is late by d. What the
// dialler sends first is late by two more, for the handshake that a distant
// TCP would have needed.
func Listen(at, to netip.AddrPort, d time.Duration) (*Forwarder, error) {
	ln, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(at))
	if err != nil {
		return nil, fmt.Errorf("delay: %w", err)
	}
	ctx, stop := context.WithCancel(context.Background())
	f := &Forwarder{listener: ln, to: to, delay: d, stop: stop}
	f.wg.Go(func() { f.run(ctx) })
	return f, nil
}

// Addr returns the address that f listens on.
func (f *Forwarder) Addr() netip.AddrPort { return f.listener.Addr().(*net.TCPAddr).AddrPort() }

// Close ends the forwarder and every connection through it.
func (f *Forwarder) Close() {
	f.stop()
	f.listener.Close()
	f.wg.Wait()
}

func (f *Forwarder) run(ctx context.Context) {
	for {
		near, err := f.listener.AcceptTCP()
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return
			}
			time.Sleep(10 * time.Millisecond) // out of file descriptors, most likely
			continue
		}
		f.wg.Go(func() { f.forward(ctx, near) })
	}
}

// forward carries one connection. It dials from the dialler's own address, so
// that the far end sees who it is.
func (f *Forwarder) forward(ctx context.Context, near *net.TCPConn) {
	defer near.Close()
	from := near.RemoteAddr().(*net.TCPAddr)
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: from.IP}}
	conn, err := dialer.DialContext(ctx, "tcp", f.to.String())
	if err != nil {
		near.SetLinger(0) // a refused connection, as far as it can be told now
		return
	}
	far := conn.(*net.TCPConn)
	defer far.Close()
	defer context.AfterFunc(ctx, func() { near.Close(); far.Close() })()

	handshake := time.Now().Add(2 * f.delay)
	var wg sync.WaitGroup
	wg.Go(func() { newPipe(near, far, f.delay, handshake).run() })
	wg.Go(func() { newPipe(far, near, f.delay, time.Time{}).run() })
	wg.Wait()
}

// mark says that the bytes up to end are due at due.
type mark struct {
	end uint64
	due time.Time
}

// markEvery merges the marks of reads that follow one another closely.
const markEvery = 50 * time.Microsecond

// pipe is one direction: a ring that a reader fills and a writer empties.
type pipe struct {
	from, to *net.TCPConn
	delay    time.Duration
	earliest time.Time // no byte counts as come before this

	ring []byte // [tail,head) is owned by the writer, the rest by the reader

	mu         sync.Mutex
	changed    sync.Cond
	head, tail uint64 // bytes read and written so far, less what reset took off
	marks      []mark // what is in the ring, oldest first
	ended      bool   // the reader is done; the last mark says when that is due
	broken     bool   // the writer is done
	clean      bool   // the reader saw an end of file, no error
}

func newPipe(from, to *net.TCPConn, d time.Duration, earliest time.Time) *pipe {
	size := min(max(minRing, int(rate*d.Seconds())), maxRing)
	p := &pipe{from: from, to: to, delay: d, earliest: earliest, ring: make([]byte, size)}
	p.changed.L = &p.mu
	return p
}

func (p *pipe) run() {
	var wg sync.WaitGroup
	wg.Go(p.readLoop)
	p.writeLoop()
	wg.Wait()
}

// readLoop fills the ring, and closes nothing: the end is late like any byte.
func (p *pipe) readLoop() {
	for {
		free := p.room()
		if free == nil {
			return
		}
		n, err := p.from.Read(free)
		p.came(n, err)
		if err != nil {
			return
		}
	}
}

// room waits for free space and returns the longest piece that starts at
// head, or nil when the writer is done.
func (p *pipe) room() []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	size := uint64(len(p.ring))
	for p.head-p.tail == size && !p.broken {
		p.changed.Wait()
	}
	if p.broken {
		return nil
	}
	if p.head == p.tail {
		p.head, p.tail = 0, 0 // an idle connection touches only the first pages
	}
	at := p.head % size
	return p.ring[at:min(size, at+size-(p.head-p.tail))]
}

func (p *pipe) came(n int, err error) {
	now := time.Now()
	if now.Before(p.earliest) {
		now = p.earliest
	}
	due := now.Add(p.delay)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.head += uint64(n)
	if last := len(p.marks) - 1; err == nil && last >= 0 && due.Sub(p.marks[last].due) < markEvery {
		p.marks[last].end = p.head
	} else {
		p.marks = append(p.marks, mark{p.head, due})
	}
	if err != nil {
		p.ended = true
		p.clean = err == io.EOF
	}
	p.changed.Broadcast()
}

// writeLoop empties the ring as its bytes fall due. When it ends for any
// reason but a clean end of file, both connections do.
func (p *pipe) writeLoop() {
	for {
		due, ended := p.next()
		if ended && p.clean {
			p.to.CloseWrite()
			return
		}
		if ended {
			break
		}
		n, err := due.WriteTo(p.to)
		if !p.went(n, err) {
			break
		}
	}
	p.to.Close()
	p.from.Close()
}

// next waits until bytes are due and returns them, or that the end is.
func (p *pipe) next() (due net.Buffers, ended bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		for len(p.marks) == 0 {
			if p.ended {
				return nil, true
			}
			p.changed.Wait()
		}
		now := time.Now()
		if wait := p.marks[0].due.Sub(now); wait > 0 {
			p.mu.Unlock()
			time.Sleep(wait)
			p.mu.Lock()
			continue
		}
		end := p.tail
		for len(p.marks) > 0 && !p.marks[0].due.After(now) {
			if most := p.tail + maxWrite; p.marks[0].end > most {
				end = most
				break
			}
			end = p.marks[0].end
			p.marks = p.marks[1:]
		}
		if end > p.tail { // else the mark was the end's, which has no bytes
			return p.held(p.tail, end), false
		}
	}
}

// held returns the bytes [from,to) of the ring, in two pieces when they wrap.
func (p *pipe) held(from, to uint64) net.Buffers {
	size := uint64(len(p.ring))
	at, n := from%size, to-from
	if at+n <= size {
		return net.Buffers{p.ring[at : at+n]}
	}
	return net.Buffers{p.ring[at:], p.ring[:at+n-size]}
}

// went makes room for the bytes that were written; false when no more can be.
func (p *pipe) went(n int64, err error) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tail += uint64(n)
	p.broken = err != nil
	p.changed.Broadcast()
	return err == nil
}
