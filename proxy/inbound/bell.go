package inbound

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"time"

	"github.com/anacrolix/torrent/bencode"

	"github.com/shoal-p2p/shoal/proxy/scrub"
	"github.com/shoal-p2p/shoal/proxy/swarm"
)

// bellWait is how long a client that was told of a peer may take to dial him.
// Clients look for whom to dial once in a second.
const bellWait = 3 * time.Second

// ring tells the client of the peer and leaves it a moment to dial him. Where
// TCP works only in that direction it moves several times more than µTP.
func (v *visit) ring(ctx context.Context, standIn netip.AddrPort) {
	v.yield(ctx)
	v.desk.ring(ctx, v.key.client, v.swm, standIn)
}

// ring tells c of peers, as other peers would (BEP 11), and returns bellWait
// after it began: a client may forget what somebody said who left at once.
func (d *Desk) ring(ctx context.Context, c swarm.Client, s swarm.Swarm, standIns ...netip.AddrPort) error {
	if d.config.Bell == nil {
		return ErrNoRoad
	}
	ctx, cancel := context.WithTimeout(ctx, bellWait)
	defer cancel()
	dial := func(ctx context.Context) (net.Conn, error) { return d.config.Bell(ctx, c, s.Hash(), standIns[0]) }
	// A peer id of nobody's: the client knows no other peer by it.
	as := scrub.Config{Hash: s.Hash(), Peer: scrub.PeerID(s.Self())}
	leg, err := scrub.Greet(ctx, dial, as, d.taste(c))
	if err != nil {
		return err
	}
	defer leg.Close()
	defer context.AfterFunc(ctx, func() { leg.Close() })()
	if err := tell(leg, standIns...); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

const (
	laterTries = 4               // to reach a client that is to be told of late peers
	laterPause = 8 * time.Second // until it is told of the next
)

// tellLater tells c of the peers that its announce came too early for: it would
// ask again only after a minute, or five.
func (d *Desk) tellLater(ctx context.Context, c swarm.Client, s swarm.Swarm) {
	for {
		peers, err := s.Later(ctx)
		if err != nil {
			return
		}
		for try := range laterTries { // again: one that is looking at its files refuses everybody
			standIns := d.config.StandIns(c, s.Hash(), d.strangers(c, s.Hash(), peers))
			if len(standIns) == 0 {
				break
			}
			err := d.ring(ctx, c, s, standIns...)
			if err == nil || errors.Is(err, errNoPEX) || errors.Is(err, ErrNoRoad) {
				break
			}
			sleep(ctx, time.Second<<try)
		}
		sleep(ctx, laterPause)
	}
}

// strangers returns those of peers between whom and c there is nothing: a
// client that dials a peer whom it has would lose him.
func (d *Desk) strangers(c swarm.Client, h swarm.Hash, peers []swarm.Key) (out []swarm.Key) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, k := range peers {
		if d.pairs[pairKey{c, h, k}] == nil {
			out = append(out, k)
		}
	}
	return out
}

// The messages of BEP 10 and BEP 11 that are spoken here.
const (
	msgExtended   = 20
	maxSaidExt    = 64 << 10 // of a client's extended handshake
	maxSaidBefore = 16 << 20 // of what comes before it: a bitfield
)

// errNoPEX: the client takes no addresses from peers, or not for this torrent,
// as with a private one.
var errNoPEX = errors.New("inbound: the client does not want to hear of peers")

// tell tells the client of peers.
func tell(client io.ReadWriter, peers ...netip.AddrPort) error {
	if _, err := client.Write(extended(0, map[string]any{"m": map[string]int{"ut_pex": 1}})); err != nil {
		return err
	}
	number, err := pexNumber(client)
	if err != nil {
		return err
	}
	var added []byte
	for _, p := range peers {
		ip := p.Addr().As4()
		added = binary.BigEndian.AppendUint16(append(added, ip[:]...), p.Port())
	}
	_, err = client.Write(extended(number, map[string]any{"added": added, "added.f": make([]byte, len(peers))}))
	return err
}

// extended returns an extended message (BEP 10).
func extended(number byte, body map[string]any) []byte {
	b := bencode.MustMarshal(body)
	out := binary.BigEndian.AppendUint32(nil, uint32(2+len(b)))
	return append(append(out, msgExtended, number), b...)
}

// pexNumber reads up to the client's extended handshake and returns what it
// wants to receive ut_pex as.
func pexNumber(client io.Reader) (byte, error) {
	for read := 0; read <= maxSaidBefore; {
		var head [6]byte
		if _, err := io.ReadFull(client, head[:4]); err != nil {
			return 0, err
		}
		n := int64(binary.BigEndian.Uint32(head[:]))
		read += 4 + int(min(n, maxSaidBefore))
		if n < 2 {
			if _, err := io.CopyN(io.Discard, client, n); err != nil {
				return 0, err
			}
			continue
		}
		if _, err := io.ReadFull(client, head[4:]); err != nil {
			return 0, err
		}
		if head[4] != msgExtended || head[5] != 0 || n > maxSaidExt {
			if _, err := io.CopyN(io.Discard, client, min(n-2, maxSaidBefore)); err != nil {
				return 0, err
			}
			continue
		}
		body := make([]byte, n-2)
		if _, err := io.ReadFull(client, body); err != nil {
			return 0, err
		}
		var said struct {
			M struct {
				PEX int `bencode:"ut_pex"`
			} `bencode:"m"`
		}
		if err := bencode.Unmarshal(body, &said); err != nil || said.M.PEX <= 0 || said.M.PEX > 255 {
			return 0, errNoPEX
		}
		return byte(said.M.PEX), nil
	}
	return 0, errNoPEX
}
