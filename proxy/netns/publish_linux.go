package netns

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"
)

// listen opens every published port of the host.
func listen(ports []Publish) ([]net.Listener, error) {
	var out []net.Listener
	for _, p := range ports {
		network := "tcp"
		if p.Host.Addr().Is4() {
			network = "tcp4" // or 0.0.0.0 would be every IPv6 address too
		}
		ln, err := net.Listen(network, p.Host.String())
		if err != nil {
			closeListeners(out)
			return nil, fmt.Errorf("netns: publish %v: %w", p, err)
		}
		out = append(out, ln)
	}
	return out, nil
}

// opened tells the user that the command listens at a published port.
func (r *runner) opened(port uint16) {
	for i, at := range r.network.Published() {
		if r.cfg.Publish[i].Port == port {
			r.cfg.Say(fmt.Sprintf("the command listens on port %d: http://%v/", port, reachable(at)))
		}
	}
}

// reachable returns an address of this machine at which a listener hears.
func reachable(at netip.AddrPort) netip.AddrPort {
	switch addr := at.Addr().Unmap(); {
	case addr == netip.IPv4Unspecified():
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), at.Port())
	case addr == netip.IPv6Unspecified():
		return netip.AddrPortFrom(netip.IPv6Loopback(), at.Port())
	default:
		return netip.AddrPortFrom(addr, at.Port())
	}
}

func closeListeners(ls []net.Listener) {
	for _, l := range ls {
		l.Close()
	}
}

// publish joins each connection to ln with one to the command's port, until ln
// is closed and every connection over.
func (r *runner) publish(ctx context.Context, ln net.Listener, port uint16) {
	var conns sync.WaitGroup
	defer conns.Wait()
	for {
		outer, err := ln.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // out of descriptors: the next one may find some
			select {
			case <-ctx.Done():
				return
			case <-time.After(100 * time.Millisecond):
			}
			continue
		}
		conns.Go(func() {
			defer outer.Close()
			inner, err := r.dial(ctx, port)
			if err != nil {
				outer.(*net.TCPConn).SetLinger(0) // a reset: an end would look like an empty answer
				return
			}
			defer inner.Close()
			defer context.AfterFunc(ctx, func() { outer.Close(); inner.Close() })()
			join(outer.(*net.TCPConn), inner.(*net.TCPConn))
		})
	}
}

// join copies both ways until both are over.
func join(a, b *net.TCPConn) {
	var back sync.WaitGroup
	back.Go(func() { pour(a, b) })
	pour(b, a)
	back.Wait()
}

// pour copies from to to, and its end. When to is gone from's sender learns it.
func pour(to, from *net.TCPConn) {
	if _, err := io.Copy(to, from); err != nil {
		from.CloseRead()
	}
	to.CloseWrite()
}

// dial has inside connect to a port of the command.
func (r *runner) dial(ctx context.Context, port uint16) (net.Conn, error) {
	answer := make(chan dialed, 1)
	r.mu.Lock()
	if r.dials == nil {
		r.mu.Unlock()
		return nil, ErrClosed
	}
	r.next++
	id := r.next
	r.dials[id] = answer
	r.mu.Unlock()
	if err := r.ctl.send(message{Kind: kindDial, ID: id, Port: port}); err != nil {
		return nil, err
	}
	// Nobody else takes the answer: who leaves before it must close what comes.
	select {
	case d := <-answer:
		return d.conn, d.err
	case <-ctx.Done():
		go func() {
			if d := <-answer; d.conn != nil {
				d.conn.Close()
			}
		}()
		return nil, ErrClosed
	}
}

// answerDial hands a dial its connection.
func (r *runner) answerDial(m message, fds []int) {
	defer closeAll(fds)
	r.mu.Lock()
	answer := r.dials[m.ID]
	delete(r.dials, m.ID)
	r.mu.Unlock()
	if answer == nil {
		return
	}
	var d dialed
	switch {
	case m.Text != "":
		d.err = errors.New(m.Text)
	case len(fds) != 1:
		d.err = errors.New("netns: no connection came")
	default:
		// FileConn keeps a descriptor of its own.
		f := os.NewFile(uintptr(fds[0]), "published")
		fds[0] = -1
		d.conn, d.err = net.FileConn(f)
		f.Close()
	}
	answer <- d
}

// dropDials fails every dial that waits, and those to come.
func (r *runner) dropDials() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, answer := range r.dials {
		answer <- dialed{err: ErrClosed}
	}
	r.dials = nil
}
