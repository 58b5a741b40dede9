package peer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/anacrolix/utp"
	"golang.org/x/net/proxy"
)

// Way is how a sink reaches a source.
type Way struct {
	SOCKS string // HOST:PORT of a SOCKS5 proxy; "" for none
	User  string // SOCKS user name; "" for none
	To    string // HOST:PORT
	UTP   bool   // dial To by µTP, without a proxy
	Hash  Hash   // swarm of the handshake
}

// dialTimeout bounds the dial, and then the handshake.
const dialTimeout = time.Minute

func (w Way) dialer() (proxy.ContextDialer, error) {
	if w.SOCKS == "" {
		return new(net.Dialer), nil
	}
	var auth *proxy.Auth
	if w.User != "" {
		auth = &proxy.Auth{User: w.User, Password: "none"}
	}
	d, err := proxy.SOCKS5("tcp", w.SOCKS, auth, new(net.Dialer))
	if err != nil {
		return nil, err
	}
	return d.(proxy.ContextDialer), nil
}

func (w Way) dial() (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), dialTimeout)
	defer cancel()
	if w.UTP {
		return utp.DialContext(ctx, w.To)
	}
	d, err := w.dialer()
	if err != nil {
		return nil, err
	}
	return d.DialContext(ctx, "tcp", w.To)
}

// greeted is a connection to a source, both handshakes said.
type greeted struct {
	net.Conn
	dialled, heard time.Duration // from the start of the dial: connected, and the source's handshake read
}

func (w Way) open() (*greeted, error) {
	start := time.Now()
	conn, err := w.dial()
	if err != nil {
		return nil, fmt.Errorf("peer: dial: %w", err)
	}
	g := &greeted{Conn: conn, dialled: time.Since(start)}
	conn.SetDeadline(time.Now().Add(dialTimeout))
	_, err = conn.Write(hello(w.Hash))
	if err == nil {
		var h Hash
		if h, err = readHello(conn); err == nil && h != w.Hash {
			err = errors.New("peer: handshake for another swarm")
		}
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	conn.SetDeadline(time.Time{})
	g.heard = time.Since(start)
	return g, nil
}

// Pull is an order for bulk: over every way at once as much as it takes.
type Pull struct {
	Ways  []Way
	Bytes int64         // of all ways together; rounded up to a mebibyte each
	Limit time.Duration // for sending it, when that is sooner
	Every time.Duration // between samples; 0: none
}

// Pulled is what came.
type Pulled struct {
	Streams []Stream
	Start   int64 // when the order went out, ns since 1970: the samples count from there
}

// Stream is what came over one way.
type Stream struct {
	Bytes       int64
	First, Last time.Duration // since Start: the first and the last byte
	Samples     []int64       // bytes so far, after every Pull.Every
}

// Bytes returns the sum over all streams.
func (p *Pulled) Bytes() (n int64) {
	for _, s := range p.Streams {
		n += s.Bytes
	}
	return n
}

// Time returns how long it took from the first byte of any stream to the last.
func (p *Pulled) Time() time.Duration {
	first, last := p.Streams[0].First, p.Streams[0].Last
	for _, s := range p.Streams[1:] {
		first, last = min(first, s.First), max(last, s.Last)
	}
	return last - first
}

// Pull opens every way, orders on all at the same time, and returns when the
// last source has said that there is no more, or after Cut.
func (p *Peer) Pull(o Pull, out *Pulled) error {
	cut := p.whenCut()
	conns := make([]*greeted, len(o.Ways))
	err := each(len(o.Ways), func(i int) (err error) {
		conns[i], err = o.Ways[i].open()
		return err
	})
	defer func() {
		for _, c := range conns {
			if c != nil {
				c.Close()
			}
		}
	}()
	if err != nil {
		return err
	}
	limit := min(o.Limit, maxBulk)
	share := uint32((o.Bytes/int64(len(conns)) + 1<<20 - 1) >> 20)
	wire := order{mebibytes: max(share, 1), milliseconds: uint32(limit.Milliseconds())}.append(nil)
	*out = Pulled{Streams: make([]Stream, len(conns))}
	start := time.Now()
	out.Start = start.UnixNano()
	return each(len(conns), func(i int) error {
		r := receiver{conn: conns[i], start: start, every: o.Every, cut: cut}
		conns[i].SetDeadline(start.Add(limit + maxDrain))
		if _, err := conns[i].Write(wire); err != nil {
			return fmt.Errorf("peer: order: %w", err)
		}
		return r.run(&out.Streams[i])
	})
}

// each calls f for 0 to n-1 at the same time.
func each(n int, f func(i int) error) error {
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { errs[i] = f(i) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// readSize is what a sink reads at once at most, bytes.
const readSize = 256 << 10

// receiver counts what comes over one way.
type receiver struct {
	conn  net.Conn
	start time.Time
	every time.Duration
	cut   <-chan struct{}

	n atomic.Int64
}

// run counts until the source has done, or cut is closed.
func (r *receiver) run(s *Stream) error {
	done := make(chan struct{})
	var wg sync.WaitGroup
	if r.every > 0 {
		wg.Go(func() { s.Samples = r.sample(done) })
	}
	wg.Go(func() {
		select {
		case <-r.cut:
			r.conn.Close()
		case <-done:
		}
	})
	defer wg.Wait()
	defer close(done)
	b := make([]byte, readSize)
	for {
		k, err := r.conn.Read(b)
		if k > 0 {
			s.Last = time.Since(r.start)
			if r.n.Add(int64(k)) == int64(k) {
				s.First = s.Last
			}
		}
		if err != nil {
			s.Bytes = r.n.Load()
			return r.judge(s.Bytes, err)
		}
	}
}

// judge says whether n bytes and then err are all that the source sent.
func (r *receiver) judge(n int64, err error) error {
	select {
	case <-r.cut:
		return nil
	default:
	}
	switch {
	case err != io.EOF:
		return fmt.Errorf("peer: after %d bytes: %w", n, err)
	case n == 0 || n%pieceSize != 0:
		return fmt.Errorf("peer: %d bytes came, no whole number of pieces", n)
	}
	return nil
}

func (r *receiver) sample(done <-chan struct{}) (samples []int64) {
	tick := time.NewTicker(r.every)
	defer tick.Stop()
	for {
		select {
		case <-done:
			return samples
		case now := <-tick.C:
			for int64(len(samples)) < int64(now.Sub(r.start)/r.every) { // a tick that was missed
				samples = append(samples, r.n.Load())
			}
		}
	}
}

// Ask is an order for small answers, one after the other.
type Ask struct {
	Way   Way
	Size  int           // bytes of each answer's block
	Count int           // how many
	Every time.Duration // from one question to the next; at once when the answer took longer
}

// Asked is how long they took.
type Asked struct {
	Dialled time.Duration // until the connection was there
	Greeted time.Duration // from the same start, until the source's handshake had come
	Trips   []time.Duration
}

// Ask opens a way and times answers over it.
func (p *Peer) Ask(o Ask, out *Asked) error {
	conn, err := o.Way.open()
	if err != nil {
		return err
	}
	defer conn.Close()
	*out = Asked{Dialled: conn.dialled, Greeted: conn.heard}
	wire := order{length: uint32(o.Size)}.append(nil)
	answer := make([]byte, headSize+8+o.Size)
	next := time.Now()
	for range o.Count {
		time.Sleep(time.Until(next))
		asked := time.Now()
		next = asked.Add(o.Every)
		conn.SetDeadline(asked.Add(dialTimeout))
		if _, err := conn.Write(wire); err != nil {
			return fmt.Errorf("peer: ask: %w", err)
		}
		if _, err := io.ReadFull(conn, answer); err != nil {
			return fmt.Errorf("peer: answer: %w", err)
		}
		out.Trips = append(out.Trips, time.Since(asked))
	}
	return nil
}
