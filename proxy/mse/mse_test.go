package mse

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/big"
	"net"
	"testing"
	"time"

	library "github.com/anacrolix/torrent/mse"
)

var torrent = [20]byte{1, 2, 3}

// conns returns the two ends of a connection over loopback.
func conns(t testing.TB) (ours, theirs net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if ours, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if theirs, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ours.Close(); theirs.Close() })
	soon := time.Now().Add(time.Minute) // nothing waits that long
	ours.SetDeadline(soon)
	theirs.SetDeadline(soon)
	return ours, theirs
}

// exchange runs the two ends of an exchange over a connection.
func exchange(t testing.TB, ours, theirs func(io.ReadWriter) (io.ReadWriter, error)) (a, b io.ReadWriter, errA, errB error) {
	t.Helper()
	connA, connB := conns(t)
	done := make(chan struct{})
	go func() {
		defer close(done)
		if b, errB = theirs(connB); errB != nil {
			connB.Close()
		}
	}()
	if a, errA = ours(connA); errA != nil {
		connA.Close()
	}
	<-done
	return a, b, errA, errB
}

func receive(rw io.ReadWriter) (io.ReadWriter, error) { return Receive(rw, torrent) }
func initiate(rw io.ReadWriter) (io.ReadWriter, error) {
	return Initiate(rw, torrent, []byte("hello "))
}

// initiateAgain is initiate, with another key where the first would not do.
func initiateAgain(t testing.TB, theirs func(io.ReadWriter) (io.ReadWriter, error)) (a, b io.ReadWriter) {
	t.Helper()
	for {
		a, b, errA, errB := exchange(t, initiate, theirs)
		if errors.Is(errA, ErrAgain) {
			continue
		}
		if errA != nil || errB != nil {
			t.Fatal(errA, errB)
		}
		return a, b
	}
}

// talk checks that what one end says the other hears, after what was said at once.
func talk(t *testing.T, name string, a, b io.ReadWriter) {
	t.Helper()
	long := bytes.Repeat([]byte("all of a piece "), 1000)
	for _, way := range []struct {
		from, to io.ReadWriter
		early    string
	}{{a, b, "hello "}, {b, a, ""}} {
		go func() {
			for part := long; len(part) > 0; part = part[min(len(part), 4321):] {
				way.from.Write(part[:min(len(part), 4321)])
			}
		}()
		got := make([]byte, len(way.early)+len(long))
		if _, err := io.ReadFull(way.to, got); err != nil || string(got) != way.early+string(long) {
			t.Errorf("%s: heard %.40q, %v", name, got, err)
		}
	}
}

// TestItSpeaksWithAnotherImplementation in either role, in every way that the
// two may agree on.
func TestItSpeaksWithAnotherImplementation(t *testing.T) {
	for name, m := range map[string]library.CryptoMethod{
		"clear": library.CryptoMethodPlaintext, "RC4": library.CryptoMethodRC4, "both": library.AllSupportedCrypto,
	} {
		a, b, errA, errB := exchange(t, receive, func(rw io.ReadWriter) (io.ReadWriter, error) {
			rw, _, err := library.InitiateHandshake(rw, torrent[:], []byte("hello "), m)
			return rw, err
		})
		if errA != nil || errB != nil {
			t.Fatal(name, errA, errB)
		}
		talk(t, "answering, "+name, b, a)
		if name == "both" {
			if _, clear := a.(pair).Writer.(net.Conn); !clear {
				t.Error("a client that takes both is encrypted for")
			}
			continue
		}
		a, b = initiateAgain(t, func(rw io.ReadWriter) (io.ReadWriter, error) {
			rw, _, err := library.ReceiveHandshake(context.Background(), rw, func(try func([]byte) bool) { try(torrent[:]) },
				func(library.CryptoMethod) library.CryptoMethod { return m })
			return rw, err
		})
		talk(t, "dialling, "+name, a, b)
	}
	a, b := initiateAgain(t, receive)
	talk(t, "with itself", a, b)
}

// TestNoSecretBeginsWithZero: rTorrent 0.9.8 leaves zero bytes in front out of
// what it hashes, and never hears of the peer then. The powers of the first key
// here are one, for even private keys, and the key itself. Those of the second
// are all one.
func TestNoSecretBeginsWithZero(t *testing.T) {
	half := new(big.Int).Sub(prime, big.NewInt(1))
	for _, c := range []struct {
		name string
		even int // private keys in front of the first odd one
		want error
	}{
		{"the first will do", 0, nil},
		{"the third will do", 2, nil},
		{"the last will do", keyTries - 1, nil},
		{"none will do", keyTries, ErrProtocol},
	} {
		drawn := 0
		key, secret, err := answerKey(bytes.NewReader(half.FillBytes(make([]byte, keySize))), func() *big.Int {
			if drawn++; drawn > c.even {
				return big.NewInt(3)
			}
			return big.NewInt(2)
		})
		if !errors.Is(err, c.want) || drawn != min(c.even+1, keyTries) {
			t.Errorf("%s: %v after %d keys", c.name, err, drawn)
		}
		if err == nil && (!bytes.Equal(secret, half.Bytes()) || !bytes.Equal(key, public(big.NewInt(3)))) {
			t.Errorf("%s: key %x, secret %x", c.name, key, secret)
		}
	}
	one := func(rw io.ReadWriter) (io.ReadWriter, error) {
		rw.Write(big.NewInt(1).FillBytes(make([]byte, keySize)))
		io.Copy(io.Discard, rw)
		return rw, nil
	}
	if _, _, err, _ := exchange(t, receive, one); !errors.Is(err, ErrProtocol) {
		t.Errorf("Receive with a key that leaves no choice: %v", err)
	}
	if _, _, err, _ := exchange(t, initiate, one); !errors.Is(err, ErrAgain) {
		t.Errorf("Initiate with such a secret: %v", err)
	}
}

func TestOtherThingsAreRefused(t *testing.T) {
	noise := bytes.Repeat([]byte{7}, 2*maxPad)
	say := func(b []byte) func(io.ReadWriter) (io.ReadWriter, error) {
		return func(rw io.ReadWriter) (io.ReadWriter, error) {
			rw.Write(b)
			return nil, errors.New("enough")
		}
	}
	other := func(rw io.ReadWriter) (io.ReadWriter, error) { return Initiate(rw, [20]byte{9}, nil) }
	for name, row := range map[string]struct {
		ours, theirs func(io.ReadWriter) (io.ReadWriter, error)
		want         error
	}{
		"noise, answering":     {receive, say(noise), ErrProtocol},
		"another torrent":      {receive, other, ErrTorrent},
		"an end, answering":    {receive, say(nil), io.EOF},
		"half a key":           {receive, say(noise[:keySize/2]), io.ErrUnexpectedEOF},
		"an end, dialling":     {initiate, say(nil), io.EOF},
		"half a key, dialling": {initiate, say(noise[:keySize/2]), io.ErrUnexpectedEOF},
	} {
		_, _, err, _ := exchange(t, row.ours, row.theirs)
		var op *net.OpError // a conn that was closed with something unread
		if !errors.Is(err, row.want) && !(errors.As(err, &op) && row.want != ErrProtocol && row.want != ErrTorrent) {
			t.Errorf("%s: %v, want %v", name, err, row.want)
		}
	}
}

// script is a connection on which the other end has said all that it will.
type script struct {
	in  io.Reader
	out bytes.Buffer
}

func (s *script) Read(b []byte) (int, error)  { return s.in.Read(b) }
func (s *script) Write(b []byte) (int, error) { return s.out.Write(b) }

// FuzzReceive and FuzzInitiate say anything behind a key whose secret is known
// beforehand, see TestNoSecretBeginsWithZero.
func FuzzReceive(f *testing.F) {
	f.Add(append(methods(plaintext), 0, 2, 'h', 'i'))
	f.Add(append(methods(encrypted), 0, 0))
	f.Add(append(zeros[:], 0xff, 0xff, 0xff, 0xff, 0xff, 0xff))
	fuzz(f, func(t *testing.T, said []byte, y *big.Int, s []byte) (*script, io.ReadWriter, error) {
		stream("keyA", s, torrent).XORKeyStream(said, said)
		c := &script{in: io.MultiReader(bytes.NewReader(y.FillBytes(make([]byte, keySize))),
			bytes.NewReader(digest("req1", s)), bytes.NewReader(name(s, torrent)), bytes.NewReader(said))}
		rw, err := Receive(c, torrent)
		return c, rw, err
	})
}

func FuzzInitiate(f *testing.F) {
	f.Add(methods(plaintext))
	f.Add(methods(encrypted))
	f.Add(append(bytes.Repeat([]byte{1}, maxPad), methods(encrypted)...))
	fuzz(f, func(t *testing.T, said []byte, y *big.Int, s []byte) (*script, io.ReadWriter, error) {
		for {
			stream("keyB", s, torrent).XORKeyStream(said, said)
			c := &script{in: io.MultiReader(bytes.NewReader(y.FillBytes(make([]byte, keySize))), bytes.NewReader(said))}
			rw, err := Initiate(c, torrent, nil)
			if !errors.Is(err, ErrAgain) {
				return c, rw, err
			}
			stream("keyB", s, torrent).XORKeyStream(said, said)
		}
	})
}

func fuzz(f *testing.F, end func(t *testing.T, said []byte, y *big.Int, s []byte) (*script, io.ReadWriter, error)) {
	half := new(big.Int).Sub(prime, big.NewInt(1))
	f.Fuzz(func(t *testing.T, said []byte) {
		c, rw, err := end(t, bytes.Clone(said), half, half.Bytes())
		if err == nil {
			got, err := io.ReadAll(rw)
			if err != nil || len(got) > len(said) {
				t.Errorf("%d bytes inside of %d, %v", len(got), len(said), err)
			}
		}
		if n := c.out.Len(); n > maxWritten {
			t.Errorf("%d bytes were written", n)
		}
	})
}

// maxWritten is a key, two digests and an offer.
const maxWritten = keySize + 2*20 + 16
