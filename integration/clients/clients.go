// Package clients drives real torrent clients, as their users have them, behind
// one interface: start, add, look, stop.
// Not here: what they are told to talk to (the tests say so).
package clients

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"github.com/shoal-p2p/shoal/integration/process"
	"github.com/shoal-p2p/shoal/integration/torrent"
)

// Encryption is what a client wants of its peer connections (MSE).
type Encryption int

// The three that clients know.
const (
	Prefer Encryption = iota // the default of all of them: both are taken
	Disable
	Require
)

// String returns the word for a test's name.
func (e Encryption) String() string { return [...]string{"prefer", "disable", "require"}[e] }

// Config is what a user would set; the zero value of each field but Dir leaves
// the client's own default.
type Config struct {
	Dir            string // of everything that the client writes; downloads are in its folder downloads
	SOCKS          string // HOST:PORT of the SOCKS5 proxy for everything; "" for none
	User, Password string // for it
	Encryption     Encryption
	NoDHT          bool
	NoQueue        bool // qBittorrent: more than five torrents at once
	NoUTP          bool
	NoPEX          bool   // qBittorrent alone
	Interface      string // qBittorrent: the network interface that it is set to use; "" for any
	Address        string // and the address of that
	Port           uint16 // for peers; 0: a free one
	DownloadLimit  int    // bytes per second; 0: none

	// Under returns the command that the client's own is given to, such as
	// `shoal run --publish PORT --`, when the client's control port is PORT, 0 for
	// none. nil: the client is started as it is.
	Under func(port uint16) []string

	// Dial connects to the client's control port, which is on another host then.
	// nil: as usual. qBittorrent, Transmission and aria2 have it.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// http returns what speaks to the client's control port.
func (c Config) http() http.Client {
	return http.Client{Timeout: controlTimeout, Transport: &http.Transport{DialContext: c.Dial}}
}

// Downloads returns the folder where payloads are.
func (c Config) Downloads() string { return filepath.Join(c.Dir, "downloads") }

// Progress is how far one torrent is.
type Progress struct {
	Done      float64 // 0 to 1
	Settled   bool    // it is neither checking its files nor fetching its description
	Peers     int     // connected
	State     string  // the client's own word
	Announced bool    // a tracker has answered
	Announce  string  // what the tracker last said, in the client's words; often empty
	Alarm     string  // what the client shows as an error of the torrent; mostly empty
}

// Client is one running client.
type Client interface {
	// Add adds a .torrent file. What is in the downloads folder already is checked and seeded.
	Add(ctx context.Context, file []byte) error

	// AddMagnet adds a magnet link.
	AddMagnet(ctx context.Context, link string) error

	// Progress says how far a torrent is that was added before.
	Progress(ctx context.Context, h torrent.Hash) (Progress, error)

	// Remove forgets a torrent and keeps its files.
	Remove(ctx context.Context, h torrent.Hash) error

	// Reannounce asks the trackers again, as soon as they allow it. A client that
	// can't be told to does nothing.
	Reannounce(ctx context.Context, h torrent.Hash) error

	// Pause and Resume stop a torrent for a while.
	Pause(ctx context.Context, h torrent.Hash) error
	Resume(ctx context.Context, h torrent.Hash) error

	// Stop asks the client to leave and returns when it is gone. A client
	// started again with the same Config knows its torrents.
	Stop() error

	// Config returns what it was started with, the port filled in.
	Config() Config

	// Process is the client's, for its id and its last words.
	Process() *process.Process
}

// Kind is one client program.
type Kind struct {
	Name  string
	SOCKS bool // it can send its peer connections through a SOCKS5 proxy
	NoDHT bool // it has no mainline DHT: nobody finds what it seeds without a tracker

	// Start returns when the client can be used. ctx bounds the start alone.
	Start func(ctx context.Context, c Config) (Client, error)
}

// All are the clients that Shoal promises to carry.
var All = []Kind{QBittorrent, Transmission, Aria2, RTorrent, Deluge, BiglyBT}

// startTimeout bounds the start of a client; a busy machine with two cores takes
// a few seconds for those written in Python, and ten that share it many more.
const startTimeout = 2 * time.Minute

// controlTimeout bounds one question to a client.
const controlTimeout = 30 * time.Second

// startPoll is how often a client that starts is asked if it has.
const startPoll = 20 * time.Millisecond

// dhtEntry is the DHT node that clients are given which know none by themselves.
// The name does not exist; under `shoal run` every name leads to the sidecar.
const dhtEntry = "dht.invalid:6881"

// loopback is where every client's control port is.
var loopback = netip.AddrFrom4([4]byte{127, 0, 0, 1})

// prepare makes the folders of c and fills in its port.
func prepare(c *Config) error {
	if err := os.MkdirAll(c.Downloads(), 0o755); err != nil {
		return err
	}
	if c.Port == 0 {
		at, err := process.FreePort(loopback)
		if err != nil {
			return err
		}
		c.Port = at.Port()
	}
	return nil
}

// command returns the client's command, under another one if c says so.
func (c Config) command(control uint16, name string, args ...string) *exec.Cmd {
	if c.Under == nil {
		return exec.Command(name, args...)
	}
	under := append(slices.Clone(c.Under(control)), name)
	return exec.Command(under[0], append(under[1:], args...)...)
}

// refuseSOCKS is the answer of clients without SOCKS for peers.
func refuseSOCKS(name string, c Config) error {
	if c.SOCKS == "" {
		return nil
	}
	return fmt.Errorf("%s has no SOCKS proxy for peers", name)
}

// ErrUnknown is Progress's answer for a torrent that the client does not have (yet).
var ErrUnknown = errors.New("the client does not know this torrent")

// Wait returns once c has all of h, or with what it got to when ctx ends.
func Wait(ctx context.Context, c Client, h torrent.Hash) error {
	return WaitFor(ctx, c, h, func(p Progress) bool { return p.Settled && p.Done == 1 })
}

// WaitFor returns once enough says true of c's progress with h.
func WaitFor(ctx context.Context, c Client, h torrent.Hash, enough func(Progress) bool) error {
	return process.Until(ctx, 100*time.Millisecond, func() (bool, error) {
		p, err := c.Progress(ctx, h)
		if err != nil {
			return false, err
		}
		return enough(p), fmt.Errorf("at %.1f %%, %s, %d peers, the tracker said %q", 100*p.Done, p.State, p.Peers, p.Announce)
	}, c.Process())
}
