package socks

import (
	"context"
	"io"
	"net"
	"net/netip"

	"github.com/armon/go-socks5"

	"github.com/shoal-p2p/shoal/proxy/peers"
	"github.com/shoal-p2p/shoal/proxy/status"
	"github.com/shoal-p2p/shoal/proxy/swarm"
)

// resolveCommand is Tor's extension of SOCKS5, which torsocks needs: the reply
// holds the address of a name, and the connection ends. Its counterpart 0xF1,
// from an address to a name, is not served.
const resolveCommand = 0xF0

// resolving marks in a context that a name is to be resolved.
type resolving struct{}

// Rewrite turns RESOLVE into a CONNECT whose target has the address that is
// asked for: go-socks5 replies with the address of its target
// (socks5.AddressRewriter).
func (r *request) Rewrite(ctx context.Context, req *socks5.Request) (context.Context, *socks5.AddrSpec) {
	r.understood = true
	switch req.Command {
	case socks5.ConnectCommand, socks5.BindCommand, socks5.AssociateCommand:
	case resolveCommand:
		ctx, req.Command = context.WithValue(ctx, resolving{}, true), socks5.ConnectCommand
	default:
		r.server.config.Count(status.Command) // and is answered: not supported
	}
	return ctx, req.DestAddr
}

// resolve returns a target at the address that stands for host, which the client
// will dial.
func (s *Server) resolve(c swarm.Client, host string) (net.Conn, error) {
	a, err := netip.ParseAddr(host)
	if err != nil {
		names := s.namesOf(c)
		if names != nil {
			a = names.Addr(host)
		}
		if !a.IsValid() {
			s.config.Count(status.Full)
			return nil, errUnreachable
		}
	}
	return resolved{addr: a}, nil
}

// maxNamers is how many clients may have names resolved.
const maxNamers = 256

// namesOf returns the names that were resolved for c, nil when too many clients
// have some.
func (s *Server) namesOf(c swarm.Client) *peers.Names {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.names[c]
	if n == nil && len(s.names) < maxNamers {
		n = new(peers.Names)
		s.names[c] = n
	}
	return n
}

// meant returns the host that c means by the one that it dials: the name whose
// address it was given, else that host.
func (s *Server) meant(c swarm.Client, host string) string {
	a, err := netip.ParseAddr(host)
	s.mu.Lock()
	names := s.names[c]
	s.mu.Unlock()
	if err != nil || names == nil {
		return host
	}
	if name, ok := names.Name(a); ok {
		return name
	}
	return host
}

// resolved is a target that is over at once.
type resolved struct {
	net.Conn // nil: nothing else is called
	addr     netip.Addr
}

func (r resolved) LocalAddr() net.Addr               { return &net.TCPAddr{IP: r.addr.AsSlice()} }
func (r resolved) Read([]byte) (int, error)          { return 0, io.EOF }
func (r resolved) Write(b []byte) (int, error)       { return len(b), nil }
func (r resolved) ReadFrom(io.Reader) (int64, error) { return 0, nil }
func (r resolved) Close() error                      { return nil }
