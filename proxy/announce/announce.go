// Package announce answers a torrent client's trackers: HTTP (BEP 3, 7, 23, 24,
// 31), UDP (BEP 15) and scrape (BEP 48), in the form that the client asked for.
// Of a request only what a Request holds is ever read: user agent, peer id, key
// and addresses end here.
// Not here: who the peers are and how they are found (packages swarm and
// peers), TLS (package authority), which bytes reach this package (package proxy).
package announce

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"net/netip"
	"time"

	"github.com/shoal-p2p/shoal/proxy/swarm"
)

// The limits of what a client may ask, and of how long it waits.
const (
	MaxRequest  = 16 << 10         // bytes of one HTTP request, all of its header; a scrape names what fits in
	MaxPeers    = 200              // peers in one answer
	ReadTimeout = 10 * time.Second // for one whole HTTP request
	IdleTimeout = 60 * time.Second // for the next request on a kept connection
	Wait        = 2 * time.Second  // for a Handler
)

// The intervals that an answer holds. libtorrent takes none below 300 s for a
// success, whatever it is told.
const (
	DefaultInterval = 30 * time.Minute // where a Response names none
	MinInterval     = 30 * time.Second // between announces that a user forces
	RetryInterval   = 30 * time.Second // after a failure that names none
)

// What a client shows to its user. Each says what to do about it.
const (
	TextNoPeers       = "no Shoal peers for this torrent yet"
	TextNotProxied    = `Shoal: peers are not going through the proxy, so this computer's address shows. Tick "Use proxy for peer connections" in the client's connection settings.`
	TextNotProxiedEnd = `Shoal refuses to share: tick "Use proxy for peer connections" in the client's connection settings, then force a reannounce.`
	TextNotReady      = "Shoal is still connecting to its relays. Nothing to do: it tries again by itself in a moment."
	TextNoTracker     = "Shoal reaches none of its trackers. Check this computer's internet connection and Shoal's status page; it tries again by itself."
	TextSlow          = "Shoal's trackers did not answer in time. Nothing to do: it tries again by itself."
	TextFailed        = "Shoal could not announce this torrent. See Shoal's log; it tries again by itself."
)

// Unknown is what Left holds when the client did not say how much it lacks.
const Unknown uint64 = math.MaxUint64

// Request is all of an announce that leaves this package.
type Request struct {
	Hash    swarm.Hash
	Port    uint16 // where the client listens; 0: nowhere (it announced 0 or 1)
	Event   swarm.Event
	Left    uint64 // bytes the client has yet to get, or Unknown
	NumWant int    // peers wanted, at most MaxPeers; -1 when the client did not say
	NoPeers bool   // the answer has no room for stand-ins: the client reads IPv6 addresses from it
}

// LogValue keeps torrents out of every log.
func (Request) LogValue() slog.Value { return slog.StringValue("(announce)") }

// Response is what a Handler tells the client.
type Response struct {
	Peers             []netip.AddrPort // stand-ins, IPv4, best first; what is beyond NumWant is left out
	Beacon            netip.AddrPort   // one more stand-in, the sidecar's own: given, but no peer that is counted; zero for none
	Seeders, Leechers int
	Interval          time.Duration // until the next announce; 0 means DefaultInterval
	Warning           string        // for the user; empty for none
	External          netip.Addr    // the stand-in that the client takes for its own address (BEP 24); zero for none
}

// Count is a torrent's line in a scrape. Both are hints.
type Count struct{ Seeders, Leechers int }

// Handler is the sidecar behind the answers, for one client. It is called with
// a context that ends after Wait, from several goroutines at once.
type Handler interface {
	// Announce returns what to tell the client. An error that is or wraps a
	// *Failure, swarm.ErrNotReady, swarm.ErrNoTracker or a context's error
	// reaches the user as a sentence of its own, any other as TextFailed.
	Announce(ctx context.Context, r Request) (Response, error)

	// Scrape returns one Count for each hash, in their order. It must not join a swarm.
	Scrape(ctx context.Context, hashes []swarm.Hash) ([]Count, error)
}

// Failure is an error with the words that the client shows to its user.
type Failure struct {
	Text  string
	Retry time.Duration // until the client should try again; 0 means RetryInterval
}

func (f *Failure) Error() string { return f.Text }

// failureOf returns what the client is told of err.
func failureOf(err error) Failure {
	f := Failure{Text: TextFailed}
	var own *Failure
	switch {
	case errors.As(err, &own):
		f = *own
	case errors.Is(err, swarm.ErrNotReady):
		f = Failure{Text: TextNotReady, Retry: 10 * time.Second}
	case errors.Is(err, swarm.ErrNoTracker):
		f.Text = TextNoTracker
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		f.Text = TextSlow
	}
	if f.Retry <= 0 {
		f.Retry = RetryInterval
	}
	return f
}

// settle brings a Handler's response to q within what an answer may hold. A
// client that stops is given nobody.
func (r Response) settle(q Request) Response {
	want := q.NumWant
	if want < 0 || want > MaxPeers {
		want = MaxPeers
	}
	if q.Event == swarm.Stopped || q.NoPeers {
		r.Peers, r.Beacon = nil, netip.AddrPort{}
	}
	peers := make([]netip.AddrPort, 0, min(want, len(r.Peers))+1)
	for _, p := range r.Peers {
		if len(peers) < want && given(p) {
			peers = append(peers, p)
		}
	}
	if given(r.Beacon) {
		peers = append(peers, r.Beacon)
	}
	r.Peers = peers
	if r.Interval <= 0 {
		r.Interval = DefaultInterval
	}
	r.Interval = max(r.Interval, MinInterval)
	r.Seeders, r.Leechers = max(r.Seeders, 0), max(r.Leechers, 0)
	return r
}

// given reports whether p can stand in an answer: IPv4 with a port.
func given(p netip.AddrPort) bool { return p.Addr().Unmap().Is4() && p.Port() != 0 }

// seconds returns d in whole seconds, rounded up.
func seconds(d time.Duration) int64 { return int64((d + time.Second - 1) / time.Second) }
