// Package mse speaks Message Stream Encryption, by which torrent clients make
// their connections look like noise, with one client: a Diffie-Hellman
// exchange, then RC4 or, if both agree, no more than the exchange. Source:
// https://wiki.vuze.com/w/Message_Stream_Encryption, in its names A is who
// dials and B who answers.
//
// The secret that both agree on never begins with a zero byte: rTorrent up to
// 0.9.8 leaves such bytes out of what it hashes, others don't, and then each
// waits for the other until one gives up. It would be one exchange in 256.
//
// There is no padding, which hides lengths from who listens on the way: the
// client is on this machine, or in the same user's network.
// Not here: what is said inside (package scrub), deadlines (those of the conn).
package mse

import (
	"bytes"
	"crypto/rand"
	"crypto/rc4"
	"crypto/sha1"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/big"
)

const (
	keySize  = 96   // of a public key and of the secret, bytes
	maxPad   = 512  // bytes that the other end may put behind its key, and into its offer or choice
	skip     = 1024 // bytes of an RC4 key stream that nobody uses
	keyTries = 8    // each fails with one honest key in 256
)

// What A offers and B chooses.
const (
	plaintext = 1
	encrypted = 2
)

// prime is P; the generator is 2.
var prime, _ = new(big.Int).SetString("FFFFFFFFFFFFFFFFC90FDAA22168C234C4C6628B80DC1CD129024E088A67CC74"+
	"020BBEA63B139B22514A08798E3404DDEF9519B3CD3A431B302B0A6DF25F14374FE1356D6D51C245E485B576625E7EC6F44C42E9A63A36210000000000090563", 16)

// zeros is VC, by which an end finds out where the other's padding is over.
var zeros [8]byte

// The ways in which an exchange fails, besides the conn's own errors.
var (
	ErrProtocol = errors.New("mse: the other end speaks something else")
	ErrTorrent  = errors.New("mse: the other end means another torrent")
	ErrAgain    = errors.New("mse: the secret begins with a zero byte; another exchange will do")
)

// Receive answers an exchange that a client begins on rw, for the torrent with
// this info-hash, and returns the stream inside: in the clear, if the client
// takes that. Whoever calls bounds the wait. The stream is as safe for
// concurrent use as rw, with one reader and one writer. Errors are ErrProtocol,
// ErrTorrent and rw's; rw may then have been read from.
func Receive(rw io.ReadWriter, torrent [20]byte) (io.ReadWriter, error) {
	key, s, err := answerKey(rw, newKey)
	if err != nil {
		return nil, err
	}
	if _, err := rw.Write(key); err != nil {
		return nil, err
	}
	if err := readTo(rw, digest("req1", s)); err != nil {
		return nil, err
	}
	var named [sha1.Size]byte
	if _, err := io.ReadFull(rw, named[:]); err != nil {
		return nil, err
	}
	if !bytes.Equal(named[:], name(s, torrent)) {
		return nil, ErrTorrent
	}
	r := &reader{rw, stream("keyA", s, torrent)}
	var vc [len(zeros)]byte
	if _, err := io.ReadFull(r, vc[:]); err != nil {
		return nil, err
	}
	if vc != zeros {
		return nil, ErrProtocol
	}
	offered, err := readMethods(r)
	if err != nil {
		return nil, err
	}
	first, err := readFirst(r)
	if err != nil {
		return nil, err
	}
	chosen := uint32(plaintext)
	if offered&plaintext == 0 {
		chosen = encrypted
	}
	w := &writer{w: rw, c: stream("keyB", s, torrent)}
	if _, err := w.Write(methods(chosen)); err != nil {
		return nil, err
	}
	if chosen == plaintext {
		return pair{io.MultiReader(first, rw), rw}, nil
	}
	return pair{io.MultiReader(first, r), w}, nil
}

// answerKey reads A's key and returns B's, made from a private key that draw
// returns, and the secret.
func answerKey(r io.Reader, draw func() *big.Int) (key, secret []byte, err error) {
	theirs, err := readKey(r)
	if err != nil {
		return nil, nil, err
	}
	for range keyTries {
		x := draw()
		if s, ok := agree(x, theirs); ok {
			return public(x), s, nil
		}
	}
	return nil, nil, fmt.Errorf("%w: no secret comes of its key", ErrProtocol)
}

// Initiate begins an exchange on rw with a client, for the torrent with this
// info-hash. first is said at once, at most 64 KiB. It returns the stream
// inside: in the clear, if the client chose that. As with Receive, the caller
// bounds the wait. Errors are ErrProtocol, ErrAgain, after which another conn
// is to be tried, and rw's.
func Initiate(rw io.ReadWriter, torrent [20]byte, first []byte) (io.ReadWriter, error) {
	x := newKey()
	if _, err := rw.Write(public(x)); err != nil {
		return nil, err
	}
	theirs, err := readKey(rw)
	if err != nil {
		return nil, err
	}
	s, ok := agree(x, theirs)
	if !ok {
		return nil, ErrAgain
	}
	w := &writer{w: rw, c: stream("keyA", s, torrent)}
	offer := binary.BigEndian.AppendUint16(methods(plaintext|encrypted), uint16(len(first)))
	offer = append(offer, first...)
	w.c.XORKeyStream(offer, offer)
	if _, err := rw.Write(bytes.Join([][]byte{digest("req1", s), name(s, torrent), offer}, nil)); err != nil {
		return nil, err
	}
	r := &reader{rw, stream("keyB", s, torrent)}
	var mark [len(zeros)]byte
	r.c.XORKeyStream(mark[:], zeros[:])
	if err := readTo(rw, mark[:]); err != nil {
		return nil, err
	}
	switch chosen, err := readMethods(r); {
	case err != nil:
		return nil, err
	case chosen == plaintext:
		return rw, nil
	case chosen == encrypted:
		return pair{r, w}, nil
	}
	return nil, fmt.Errorf("%w: it chose both ways", ErrProtocol)
}

// newKey returns a private key: 160 bits, as all do.
func newKey() *big.Int {
	var b [20]byte
	rand.Read(b[:])
	return new(big.Int).SetBytes(b[:])
}

// public returns the public key of x.
func public(x *big.Int) []byte {
	return new(big.Int).Exp(big.NewInt(2), x, prime).FillBytes(make([]byte, keySize))
}

func readKey(r io.Reader) (*big.Int, error) {
	var b [keySize]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return nil, err
	}
	return new(big.Int).SetBytes(b[:]), nil
}

// agree returns the secret of a private and a public key; false if it begins
// with a zero byte.
func agree(x, y *big.Int) ([]byte, bool) {
	s := new(big.Int).Exp(y, x, prime).FillBytes(make([]byte, keySize))
	return s, s[0] != 0
}

func digest(what string, parts ...[]byte) []byte {
	h := sha1.New()
	io.WriteString(h, what)
	for _, p := range parts {
		h.Write(p)
	}
	return h.Sum(nil)
}

// name is how A says which torrent it means.
func name(s []byte, torrent [20]byte) []byte {
	out := digest("req2", torrent[:])
	subtle.XORBytes(out, out, digest("req3", s))
	return out
}

// stream returns one direction's key stream.
func stream(key string, s []byte, torrent [20]byte) *rc4.Cipher {
	c, err := rc4.NewCipher(digest(key, s, torrent[:]))
	if err != nil {
		panic(err) // a digest is as long as a key may be
	}
	var unused [skip]byte
	c.XORKeyStream(unused[:], unused[:])
	return c
}

// readTo reads from r to the end of mark, before which there may be padding,
// and no byte further.
func readTo(r io.Reader, mark []byte) error {
	seen := make([]byte, 0, maxPad+len(mark))
	for missing := len(mark); missing > 0; {
		if len(seen)+missing > cap(seen) {
			return ErrProtocol
		}
		had := len(seen)
		seen = seen[:had+missing]
		if _, err := io.ReadFull(r, seen[had:]); err != nil {
			return err
		}
		missing = 0
		for !bytes.HasSuffix(seen, mark[:len(mark)-missing]) {
			missing++
		}
	}
	return nil
}

// methods is an offer or a choice: VC, the methods, and that no padding follows.
func methods(m uint32) []byte {
	return append(binary.BigEndian.AppendUint32(bytes.Clone(zeros[:]), m), 0, 0)
}

// readMethods reads what follows a VC.
func readMethods(r io.Reader) (uint32, error) {
	var b [6]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return 0, err
	}
	m, pad := binary.BigEndian.Uint32(b[:]), int64(binary.BigEndian.Uint16(b[4:]))
	if m &= plaintext | encrypted; m == 0 || pad > maxPad {
		return 0, ErrProtocol
	}
	_, err := io.CopyN(io.Discard, r, pad)
	return m, err
}

// readFirst reads what A says at once, which is encrypted in any case: A may
// not listen before that is read.
func readFirst(r io.Reader) (io.Reader, error) {
	var size [2]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return nil, err
	}
	first := make([]byte, binary.BigEndian.Uint16(size[:]))
	_, err := io.ReadFull(r, first)
	return bytes.NewReader(first), err
}

// pair is the two directions of a stream.
type pair struct {
	io.Reader
	io.Writer
}

// reader decrypts where it reads to.
type reader struct {
	r io.Reader
	c *rc4.Cipher
}

func (r *reader) Read(b []byte) (int, error) {
	n, err := r.r.Read(b)
	r.c.XORKeyStream(b[:n], b[:n])
	return n, err
}

// writer encrypts a copy. After an error the key stream and the conn have
// parted, and nothing more can be written.
type writer struct {
	w   io.Writer
	c   *rc4.Cipher
	buf []byte // as long as the longest Write so far
}

func (w *writer) Write(b []byte) (int, error) {
	if len(w.buf) < len(b) {
		w.buf = make([]byte, len(b))
	}
	w.c.XORKeyStream(w.buf, b)
	return w.w.Write(w.buf[:len(b)])
}
