// Package status shows the sidecar's state to the person beside it, and to
// their programs, on loopback: a page, JSON, Prometheus metrics, and probes.
// Everything in it is a count of the whole sidecar: nothing joins two ends,
// names a torrent or holds an address.
// Not here: where the numbers come from (package proxy).
package status

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Status is the sidecar's state, in the form of /status.json.
type Status struct {
	Version  string            `json:"version"`   // of the program
	Ready    bool              `json:"ready"`     // a client's traffic can be carried
	Why      string            `json:"why"`       // why not, or not well: a sentence for the user
	Cause    string            `json:"cause"`     // of not being ready, one of the names in docs/running.md; else ""
	Advice   string            `json:"advice"`    // what the user can do about it; "" for nothing
	Trackers Trackers          `json:"trackers"`  // how many answer
	Hops     int               `json:"hops"`      // own relays on each side, as configured
	Circuits []Circuit         `json:"circuits"`  // in any order
	Streams  int               `json:"streams"`   // open peer connections
	BytesIn  uint64            `json:"bytes_in"`  // file and protocol bytes from peers since the start
	BytesOut uint64            `json:"bytes_out"` // the same to peers
	Refused  map[string]uint64 `json:"refused"`   // set by the Server from its Counters

	// Warnings are what the user must act on, one sentence each. Red on the page.
	Warnings []string `json:"-"`
}

// Trackers is how many of the network's trackers answer.
type Trackers struct {
	All    int `json:"all"`
	Asked  int `json:"asked"` // so far: the rest have neither answered nor failed to
	Answer int `json:"answer"`
}

// Circuit is all that is shown of one circuit.
type Circuit struct {
	Use   string `json:"use"`   // peer, inbound or tracker
	Hops  int    `json:"hops"`  // relays, the last one counted
	State string `json:"state"` // building, open, …
}

// Source knows the state. Status is called from several goroutines at once and
// must not block for long.
type Source interface{ Status() Status }

// Listen opens the address for a status page, which is for this computer only.
// The host is a loopback address or localhost; port 0 means any.
func Listen(addr string) (net.Listener, error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, fmt.Errorf("status: address %q: %w", addr, err)
	}
	if !isLoopback(host) {
		return nil, fmt.Errorf("status: %q is not on loopback: the page is for this computer only", addr)
	}
	return net.Listen("tcp", addr)
}

// isLoopback says if a host, of a URL or a flag, can only be this computer.
// Names are not resolved: what they resolve to is somebody else's word.
func isLoopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	a, err := netip.ParseAddr(host)
	return err == nil && a.Zone() == "" && a.Unmap().IsLoopback()
}

// Server serves the page.
type Server struct {
	source   Source
	counters *Counters
	samples  samples
}

// NewServer returns a Server of what source and counters say.
func NewServer(source Source, counters *Counters) *Server {
	return &Server{source: source, counters: counters}
}

// The limits on whoever connects.
const (
	maxHeader   = 8 << 10
	readTimeout = 5 * time.Second
	idleTimeout = time.Minute
)

// Run serves on ln, which it closes, until ctx ends.
func (s *Server) Run(ctx context.Context, ln net.Listener) error {
	addr, err := netip.ParseAddrPort(ln.Addr().String())
	if err != nil || !addr.Addr().IsLoopback() {
		ln.Close()
		return errors.New("status: not a loopback listener")
	}
	srv := &http.Server{
		Handler:           s.handler(addr.Port()),
		ReadHeaderTimeout: readTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      2 * readTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          log.New(io.Discard, "", 0), // it would log addresses
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		<-ctx.Done()
		srv.Close()
	})
	wg.Go(func() { s.sample(ctx) })
	err = srv.Serve(ln)
	cancel()
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// status returns the state with what the Server itself knows.
func (s *Server) status() Status {
	st := s.source.Status()
	st.Refused = s.counters.Counts()
	st.Circuits = slices.Clone(st.Circuits)
	if st.Circuits == nil {
		st.Circuits = []Circuit{} // JSON: an empty list, not null
	}
	// Sorted, so that neither order nor age shows.
	slices.SortFunc(st.Circuits, func(a, b Circuit) int {
		return cmp.Or(cmp.Compare(a.Use, b.Use), cmp.Compare(a.Hops, b.Hops), cmp.Compare(a.State, b.State))
	})
	return st
}

// isOurs says if a request's Host header names this computer and port. Any
// other name is a page elsewhere whose name was made to resolve to here (DNS
// rebinding).
func isOurs(host string, port uint16) bool {
	name, p, err := net.SplitHostPort(host)
	if err != nil {
		name, p = strings.Trim(host, "[]"), "80"
	}
	return p == strconv.Itoa(int(port)) && isLoopback(name)
}
