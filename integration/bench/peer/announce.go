package peer

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"time"

	"github.com/anacrolix/torrent/bencode"
)

// Announce is an order to be in swarms: by HTTP (BEP 3, 23) through a SOCKS
// proxy, to a tracker that does not exist.
type Announce struct {
	SOCKS, User string
	Hashes      []Hash
	Port        uint16        // where this process listens; 0: nowhere
	Peers       int           // ask again until each swarm had so many
	Limit       time.Duration // for all of it
	AtOnce      int           // swarms announced at the same time; 0: all
}

// Announced is what became of it, in the order of Announce.Hashes.
type Announced struct{ Swarms []Swarm }

// Swarm is what became of one swarm.
type Swarm struct {
	Peers    []string      // HOST:PORT, as last answered
	Answered time.Duration // what the first request took
	Found    time.Duration // from the start of all: until there were peers enough
	Trouble  string        // the last failure or what was missing at the end; "" when all was well
}

// again is how long an announcer waits for peers before it asks again.
const again = 300 * time.Millisecond

// Announce announces every swarm until it has its peers. A swarm that doesn't
// come to it is no error: Trouble says so.
func (p *Peer) Announce(o Announce, out *Announced) error {
	dialer, err := Way{SOCKS: o.SOCKS, User: o.User}.dialer()
	if err != nil {
		return err
	}
	client := &http.Client{Transport: &http.Transport{DialContext: dialer.DialContext, DisableKeepAlives: true}}
	ctx, cancel := context.WithTimeout(context.Background(), o.Limit)
	defer cancel()
	start := time.Now()
	out.Swarms = make([]Swarm, len(o.Hashes))
	atOnce := o.AtOnce
	if atOnce == 0 {
		atOnce = len(o.Hashes)
	}
	slots := make(chan struct{}, atOnce)
	return each(len(o.Hashes), func(i int) error {
		s := &out.Swarms[i]
		for n := 0; ; n++ {
			slots <- struct{}{}
			asked := time.Now()
			peers, err := announce(ctx, client, o.Hashes[i], o.Port)
			if n == 0 {
				s.Answered = time.Since(asked)
			}
			<-slots
			switch {
			case err != nil:
				s.Trouble = err.Error()
			case len(peers) < o.Peers:
				s.Peers, s.Trouble = peers, fmt.Sprintf("%d peers, want %d", len(peers), o.Peers)
			default:
				s.Peers, s.Trouble, s.Found = peers, "", time.Since(start)
				return nil
			}
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(again):
			}
		}
	})
}

// maxAnswer bounds a tracker's answer, bytes.
const maxAnswer = 64 << 10

// announce asks once.
func announce(ctx context.Context, client *http.Client, h Hash, port uint16) ([]string, error) {
	left := "0"
	if port == 0 {
		left = "1000000000"
	}
	q := "info_hash=" + url.QueryEscape(string(h[:])) + "&peer_id=-SB0001-benchbench12&port=" + strconv.Itoa(int(port)) +
		"&uploaded=0&downloaded=0&left=" + left + "&event=started&numwant=50&compact=1"
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://tracker.invalid/announce?"+q, nil)
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(r)
	if err != nil {
		return nil, plain(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return nil, err
	}
	var answer struct {
		Failure string `bencode:"failure reason"`
		Peers   string `bencode:"peers"`
	}
	if err := bencode.Unmarshal(body, &answer); err != nil {
		return nil, fmt.Errorf("peer: answer to an announce: %w", err)
	}
	if answer.Failure != "" {
		return nil, errors.New(answer.Failure)
	}
	var peers []string
	for b := []byte(answer.Peers); len(b) >= 6; b = b[6:] {
		peers = append(peers, netip.AddrPortFrom(netip.AddrFrom4([4]byte(b)), binary.BigEndian.Uint16(b[4:])).String())
	}
	return peers, nil
}

// plain leaves out the URL that package http puts into its errors.
func plain(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	var op *net.OpError
	if errors.As(err, &op) {
		err = op.Err
	}
	return err
}
