package scrub

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/anacrolix/torrent/mse"
	own "github.com/shoal-p2p/shoal/proxy/mse"
	"github.com/shoal-p2p/shoal/proxy/swarm"
)

var clientID = ID([]byte("-qB4520-0123456789ab"))

// plainHello is what a client says first.
func plainHello() []byte { return hello(testHash, allReserved, clientID) }

func TestAcceptTakesAPlainHandshakeAndLosesNothing(t *testing.T) {
	ours, theirs := net.Pipe()
	go theirs.Write(append(plainHello(), "and more"...))
	l, err := Accept(t.Context(), ours, testHash)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	got := make([]byte, helloSize+8)
	if _, err := io.ReadFull(l, got); err != nil || string(got) != string(plainHello())+"and more" {
		t.Errorf("read %q, %v", got, err)
	}
}

func TestWhichReadsTheSwarmAndLosesNothing(t *testing.T) {
	ours, theirs := net.Pipe()
	defer ours.Close()
	go func() {
		for _, b := range append(plainHello(), "and more"...) {
			theirs.Write([]byte{b})
		}
	}()
	l, hash, err := Which(t.Context(), ours)
	if err != nil || hash != testHash {
		t.Fatalf("Which = %v, %v", hash == testHash, err)
	}
	got := make([]byte, helloSize+8)
	if _, err := io.ReadFull(l, got); err != nil || string(got) != string(plainHello())+"and more" {
		t.Errorf("read %q, %v", got, err)
	}
}

func TestWhichRefusesWhatIsNoHandshake(t *testing.T) {
	for name, c := range map[string]struct {
		say  []byte
		want error
	}{
		"another protocol": {[]byte("\x13BitTorrent protocoL"), ErrNotBitTorrent},
		"half of one":      {plainHello()[:40], io.EOF},
		"nothing":          {nil, io.EOF},
	} {
		ours, theirs := net.Pipe()
		go func() {
			theirs.Write(c.say)
			theirs.Close()
		}()
		if l, _, err := Which(t.Context(), ours); l != nil || !errors.Is(err, c.want) {
			t.Errorf("%s: Which = %v, %v, want %v", name, l, err, c.want)
		}
		ours.Close()
	}
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		defer theirs.Close()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if l, _, err := Which(ctx, ours); l != nil || err != ErrSilent {
			t.Errorf("silence: Which = %v, %v", l, err)
		}
	})
}

func TestAcceptAnswersMSEInAllModes(t *testing.T) {
	for _, row := range []struct {
		name     string
		provides mse.CryptoMethod
		early    bool // the handshake comes with the key exchange
	}{
		{"plaintext inside", mse.CryptoMethodPlaintext, true},
		{"RC4 alone", mse.CryptoMethodRC4, true},
		{"both", mse.AllSupportedCrypto, true},
		{"RC4, the handshake behind it", mse.CryptoMethodRC4, false},
		{"plaintext, the handshake behind it", mse.CryptoMethodPlaintext, false},
	} {
		ours, theirs := net.Pipe()
		var wg sync.WaitGroup
		wg.Go(func() {
			early := plainHello()
			if !row.early {
				early = nil
			}
			rw, _, err := mse.InitiateHandshake(theirs, testHash[:], early, row.provides)
			if err != nil {
				t.Errorf("%s: %v", row.name, err)
				return
			}
			if !row.early {
				rw.Write(plainHello())
			}
			rw.Write([]byte("ping"))
			got := make([]byte, 4)
			if _, err := io.ReadFull(rw, got); err != nil || string(got) != "pong" {
				t.Errorf("%s: the client reads %q, %v", row.name, got, err)
			}
		})
		l, err := Accept(t.Context(), ours, testHash)
		if err != nil {
			t.Fatalf("%s: %v", row.name, err)
		}
		got := make([]byte, helloSize+4)
		if _, err := io.ReadFull(l, got); err != nil || string(got) != string(plainHello())+"ping" {
			t.Errorf("%s: read %q, %v", row.name, got, err)
		}
		l.Write([]byte("pong"))
		wg.Wait()
		l.Close()
	}
}

func TestAcceptRefusesOtherTorrentsAndOtherThings(t *testing.T) {
	other := [20]byte{1}
	for _, row := range []struct {
		name string
		say  func(net.Conn)
		want error
	}{
		{"another torrent", func(c net.Conn) { c.Write(hello(other, allReserved, clientID)) }, ErrWrongSwarm},
		{"another torrent in MSE", func(c net.Conn) { mse.InitiateHandshake(c, other[:], plainHello(), mse.CryptoMethodRC4) }, ErrWrongSwarm},
		{"another torrent inside MSE", func(c net.Conn) {
			mse.InitiateHandshake(c, testHash[:], hello(other, allReserved, clientID), mse.CryptoMethodRC4)
		}, ErrWrongSwarm},
		{"no handshake inside MSE", func(c net.Conn) {
			mse.InitiateHandshake(c, testHash[:], bytes.Repeat([]byte("x"), 68), mse.CryptoMethodRC4)
		}, ErrNotBitTorrent},
		{"noise", func(c net.Conn) { c.Write(bytes.Repeat([]byte{7}, 2000)) }, ErrNotBitTorrent},
		{"an end", func(c net.Conn) { c.Close() }, io.EOF},
		{"half a handshake and an end", func(c net.Conn) { c.Write(plainHello()[:60]); c.Close() }, io.EOF},
	} {
		ours, theirs := net.Pipe()
		go io.Copy(io.Discard, theirs)
		if row.name == "noise" || row.name == "an end" || row.name == "another torrent" {
			go row.say(theirs)
		} else {
			// The client reads for itself.
			ours.Close()
			ours, theirs = net.Pipe()
			go row.say(theirs)
		}
		l, err := Accept(t.Context(), ours, testHash)
		if !errors.Is(err, row.want) || l != nil {
			t.Errorf("%s: Accept = %v, %v, want %v", row.name, l, err, row.want)
		}
		ours.Close()
		theirs.Close()
	}
}

func TestSilenceEndsWithTheContext(t *testing.T) {
	for _, said := range [][]byte{nil, plainHello()[:30], bytes.Repeat([]byte{7}, 100)} {
		for name, f := range map[string]func(context.Context, net.Conn, swarm.Hash) (*Leg, error){"Accept": Accept, "Far": Far} {
			synctest.Test(t, func(t *testing.T) {
				ours, theirs := net.Pipe()
				defer ours.Close()
				go func() {
					theirs.Write(said)
					io.Copy(io.Discard, theirs)
				}()
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				defer cancel()
				start := time.Now()
				l, err := f(ctx, ours, testHash)
				want, after := ErrSilent, 10*time.Second
				if name == "Far" && len(said) == 100 {
					want, after = ErrNotBitTorrent, 0
				}
				if l != nil || !errors.Is(err, want) || time.Since(start) != after {
					t.Errorf("%s = %v, %v after %v, want %v after %v", name, l, err, time.Since(start), want, after)
				}
			})
		}
	}
}

func TestFarTakesNoMSE(t *testing.T) {
	ours, theirs := net.Pipe()
	defer ours.Close()
	go mse.InitiateHandshake(theirs, testHash[:], plainHello(), mse.AllSupportedCrypto)
	if l, err := Far(t.Context(), ours, testHash); l != nil || !errors.Is(err, ErrNotBitTorrent) {
		t.Errorf("Far = %v, %v, want %v", l, err, ErrNotBitTorrent)
	}
	theirs.Close()
}

// client is a torrent client that is dialled.
type client struct {
	plain, mse bool // what it takes
	again      int  // exchanges of MSE that it lets come to no good secret
	hash       swarm.Hash
	dials      int
	heard      []byte // the handshake it was told last
	done       sync.WaitGroup
}

func (c *client) dial(context.Context) (net.Conn, error) {
	c.dials++
	ours, theirs := net.Pipe()
	c.done.Go(func() { c.serve(theirs) })
	return ours, nil
}

func (c *client) serve(conn net.Conn) {
	defer conn.Close()
	first := make([]byte, len(protocol))
	if _, err := io.ReadFull(conn, first); err != nil {
		return
	}
	var rw io.ReadWriter = readWriter{io.MultiReader(bytes.NewReader(first), conn), conn}
	isPlain := string(first) == protocol
	if isPlain && !c.plain || !isPlain && !c.mse {
		return
	}
	if !isPlain && c.again > 0 {
		c.again--
		io.ReadFull(rw, make([]byte, 96))
		conn.Write(append(make([]byte, 95), 1)) // whatever the other key is, the secret is one
		return
	}
	if !isPlain {
		var err error
		rw, err = own.Receive(rw, testHash)
		if err != nil {
			return
		}
	}
	c.heard = make([]byte, helloSize)
	if _, err := io.ReadFull(rw, c.heard); err != nil {
		return
	}
	rw.Write(hello(c.hash, allReserved, clientID))
	io.Copy(rw, rw)
}

// farLeg is a stream whose handshake was read.
func farLeg(t *testing.T) *Leg {
	t.Helper()
	ours, theirs := net.Pipe()
	go theirs.Write(hello(testHash, [8]byte{5: 0x10}, ID([]byte("-XX0000-of the far s"))))
	far, err := Far(t.Context(), ours, testHash)
	if err != nil {
		t.Fatal(err)
	}
	return far
}

func TestDialFindsTheWayInAndRemembersIt(t *testing.T) {
	c := &client{plain: true, mse: true, hash: testHash}
	var taste Taste
	for _, row := range []struct {
		name       string
		plain, mse bool
		dials      int
	}{
		{"prefer", true, true, 1},
		{"require, at first", false, true, 2},
		{"require, as known", false, true, 1},
		{"disable, at first", true, false, 2},
		{"disable, as known", true, false, 1},
	} {
		c.plain, c.mse, c.dials = row.plain, row.mse, 0
		far := farLeg(t)
		l, err := Dial(t.Context(), c.dial, far, testConfig, &taste)
		if err != nil || c.dials != row.dials {
			t.Fatalf("%s: Dial = %v after %d dials, want %d", row.name, err, c.dials, row.dials)
		}
		if want := hello(testHash, [8]byte{5: 0x10}, testConfig.Peer); !bytes.Equal(c.heard, want) {
			t.Errorf("%s: the client hears %q, want %q", row.name, c.heard, want)
		}
		got := make([]byte, helloSize)
		if _, err := io.ReadFull(l, got); err != nil || !bytes.Equal(got, plainHello()) {
			t.Errorf("%s: read %q, %v", row.name, got, err)
		}
		go l.Write([]byte("ping"))
		if _, err := io.ReadFull(l, got[:4]); err != nil || string(got[:4]) != "ping" {
			t.Errorf("%s: read %q, %v", row.name, got[:4], err)
		}
		l.Close()
		far.Close()
		c.done.Wait()
	}
}

// TestDialTriesOnceMoreForABetterSecret: see package mse.
func TestDialTriesOnceMoreForABetterSecret(t *testing.T) {
	for again, want := range []error{nil, nil, own.ErrAgain} {
		c, far := &client{mse: true, again: again, hash: testHash}, farLeg(t)
		l, err := Dial(t.Context(), c.dial, far, testConfig, new(Taste))
		if dials := 2 + min(again, 1); !errors.Is(err, want) || c.dials != dials { // the first is plain
			t.Errorf("%d bad exchanges: Dial = %v after %d dials, want %v after %d", again, err, c.dials, want, dials)
		}
		if l != nil {
			l.Close()
		}
		far.Close()
		c.done.Wait()
	}
}

func TestGreetSpeaksForItself(t *testing.T) {
	for name, c := range map[string]*client{"plain": {plain: true, hash: testHash}, "MSE": {mse: true, hash: testHash}} {
		l, err := Greet(t.Context(), c.dial, testConfig, new(Taste))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if want := hello(testHash, [8]byte{5: 0x10}, testConfig.Peer); !bytes.Equal(c.heard, want) {
			t.Errorf("%s: the client hears %q, want %q", name, c.heard, want)
		}
		go l.Write([]byte("ping"))
		got := make([]byte, 4)
		if _, err := io.ReadFull(l, got); err != nil || string(got) != "ping" {
			t.Errorf("%s: read %q, %v", name, got, err)
		}
		l.Close()
		c.done.Wait()
	}
}

func TestDialGivesUp(t *testing.T) {
	none := errors.New("nobody listens")
	for _, row := range []struct {
		name  string
		c     *client
		dial  error
		dials int
		want  error
	}{
		{"a client that takes neither", &client{}, nil, 2, io.ErrClosedPipe},
		{"a client of another torrent", &client{plain: true, mse: true, hash: [20]byte{1}}, nil, 1, ErrWrongSwarm},
		{"no client", &client{}, none, 1, none},
	} {
		far := farLeg(t)
		dials := 0
		l, err := Dial(t.Context(), func(ctx context.Context) (net.Conn, error) {
			dials++
			if row.dial != nil {
				return nil, row.dial
			}
			return row.c.dial(ctx)
		}, far, testConfig, new(Taste))
		if l != nil || !errors.Is(err, row.want) || dials != row.dials {
			t.Errorf("%s: Dial = %v, %v after %d dials, want %v after %d", row.name, l, err, dials, row.want, row.dials)
		}
		row.c.done.Wait() // all conns were closed
		far.Close()
	}
}

func TestDialLeavesAMuteClientInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		far := farLeg(t)
		defer far.Close()
		start := time.Now()
		l, err := Dial(t.Context(), func(context.Context) (net.Conn, error) {
			ours, theirs := net.Pipe()
			go io.Copy(io.Discard, theirs)
			return ours, nil
		}, far, testConfig, new(Taste))
		if l != nil || !errors.Is(err, ErrSilent) || time.Since(start) != 2*answerTimeout {
			t.Errorf("Dial = %v, %v after %v, want %v after %v", l, err, time.Since(start), ErrSilent, 2*answerTimeout)
		}
	})
}
