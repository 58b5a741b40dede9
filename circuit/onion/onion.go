// Package onion holds the secrets of a circuit: the onion that opens it, the
// answers to it, and the layers of its cells. Every number of the handshake,
// its labels and the nonce rule stand here and nowhere else.
// Not here: sockets, circuit ids, retries, who is chosen as a hop (package
// path), what a payload says (package cell).
//
// M is cell.MaxHops, W is cell.Size, P is cell.Payload, H is SHA-256, HKDF is
// over SHA-256, GCM is AES-256-GCM, HPKE is RFC 9180 in base mode with
// MLKEM768-X25519, HKDF-SHA256 and AES-256-GCM. Big endian.
//
// # CREATE
//
// A client wraps one onion, one layer per hop; each relay peels one and sends
// the rest on. It has one size at every hop, so it says neither how many hops
// came before nor how many follow. cell.CreateSize bytes:
//
//	   0     1  number of the relay's onion key; in clear, so nobody tries keys
//	   1  1120  HPKE encapsulation to that key
//	1121    88  header, 72 bytes, sealed
//	1209  6368  rest: (M-1) × 1208 + 1536 bytes
//
// The header, sealed by the HPKE context with the whole rest as additional
// data:
//
//	 0   1  cell.Version
//	 1   4  time step: ten minutes since 1970
//	 5  32  the client's X25519 key, fresh for this hop
//	37  32  identity of the next hop; zero: you are the last
//	69   2  C, the length of this hop's layer of a cell (below)
//	71   1  number of the next hop's onion key; zero for the last
//
// HPKE's info is "shoal/1 create", the relay's identity (32), its onion key's
// number (1). What else comes of the HPKE context are its exports, 32 bytes
// each, named "onion", "hop", "back" and "answer".
//
// The relay appends 1208 zero bytes to the rest and XORs it all with
// AES-256-CTR, IV zero, under "onion": behind the next key's number that is the
// next CREATE. The client knows every keystream, computes first hop to last
// what the appended zeros turn into, and then seals last hop to first around it
// (the fillers of Sphinx). At the last hop the first 1536 bytes are a box: one
// early message, zero padded, or zeros. What lies behind it is random.
//
// Two relays around an honest one find nothing in common in what they saw, and
// a changed bit anywhere fails at the next hop. Forward secrecy: the keys of
// cells have it at once. What rides inside CREATE (the next hop, the early
// message) is as secret as the onion key, which is erased when it is rotated
// out.
//
// # Hop keys
//
//	t        = H(info || CREATE without its first byte, as this hop received it)
//	c, r     = fresh X25519 keys of client and relay
//	ikm      = "hop" || X25519(c, r); an all-zero X25519 result is an error
//	kf || kb || confirm = HKDF(salt t, ikm, info c || r), 3 × 32 bytes
//
// kf seals towards the last hop, kb towards the client. confirm is known to
// the client and this hop only and binds what is signed to this circuit.
//
// # CREATED
//
// M × 49 bytes at every hop. A relay drops the last 49 of the CREATED it was
// given (the last hop takes random bytes), XORs the rest with AES-256-CTR, IV
// zero, under "back", and puts its own answer in front:
//
//	 0  32  r; zero in a failure
//	32   1  status, a cell.Reason: 0, or why the hop behind failed this one
//	33  16  tag: GCM under "answer", nonce zero, additional data t
//
// A relay that can't reach its next hop, or is refused by it, answers in place
// of the hops behind, with random bytes behind its answer: by its bytes, hops
// before can't tell it from success. The client then blames the edge between the two, not
// one end. An answer is sealed once per CREATE, and the replay cache keeps one
// CREATE from being peeled twice: that is what makes the zero nonce right. For
// the same reason a replayed CREATE gets no sealed answer; the link's DESTROY
// says it.
//
// # Cells
//
// A cell has W bytes on every link in both directions. A client with n hops
// draws a slack s from 0..M-n. Hop i (counted from 0) owns the first
//
//	C_i = W - 16 × (i+s)
//
// bytes, which open to C_i - 16 = C_(i+1). Within all layers lie P bytes of
// payload, whatever n is. A relay learns i+s, hence neither its place nor n.
// C_i is at least P + 16, at least P + 32 at a hop that has a next one: that
// bounds hops to M.
//
// Towards the last hop a relay opens C_i bytes and overwrites every byte behind
// with fresh random ones: bytes that a relay leaves as it found them are a
// clear channel between the two relays around it. Towards the client the last
// hop seals C_i - 16 bytes, after it has overwritten all behind the payload, and
// then again what is behind its tag; every other hop XORs all W bytes with its
// key stream. Overwriting bytes come from ChaCha8, seeded by the system, one
// generator per layer and direction.
//
// Nonce: four zero bytes and a 64-bit counter of cells, from 0; one key per
// direction. Key stream: AES-256-CTR from a counter of zero or ChaCha20 with a
// nonce of zero, as the Suite says, one cell behind the other. After 2^24 cells:
// key = HKDF-Expand(key, "rekey"), counter 0, no message. A cell that is altered
// within C of the last hop, dropped, repeated or out of order fails to open:
// towards the last hop at the next honest relay, towards the client at the
// client, since relays can't check what they only add to. A direction that
// failed once opens nothing more. So all that a tag can do is to end the
// circuit, which a relay can do anyway.
//
// The AEAD of cells is the relay's Suite. AES has 256-bit keys in the whole
// network. Measured (BenchmarkAEAD, EPYC with VAES, medians of seven): a layer
// of a cell costs 0.97 µs to seal and 1.00 to open, copy included, 0.84 and
// 0.89 with 128-bit keys, 1.57 and 1.54 with ChaCha20-Poly1305. So 128 bits
// would save an eighth of a layer: over the twelve of a default path that comes
// to 0.35 CPU seconds per GB. They are not taken because every key here starts
// at nonce 0: who records a million million circuits searches for all their
// keys at once, and 128 bits less 40 are too few.
package onion

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hpke"
	"crypto/sha256"
	"errors"
	"time"

	"github.com/shoal-p2p/shoal/circuit/cell"
)

// The offsets in CREATE and its header, bytes; the package comment is the
// layout.
const (
	encSize    = 1120
	headerSize = 1 + 4 + keySize + keySize + 2 + 1
	bodySize   = cell.CreateSize - 1 // CREATE behind its first byte
	keySize    = 32

	headerStep   = 1
	headerClient = headerStep + 4
	headerNext   = headerClient + keySize
	headerLength = headerNext + keySize
	headerNumber = headerLength + 2
)

// The labels.
const (
	createInfo   = "shoal/1 create"
	exportOnion  = "onion"
	exportHop    = "hop"
	exportBack   = "back"
	exportAnswer = "answer"
	rekeyInfo    = "rekey"
)

// errOpen is all that is said of anything sealed that does not open.
var errOpen = errors.New("onion: does not open")

// stepSize is how coarse the time in CREATE is.
const stepSize = 10 * time.Minute

// Step returns the time step that t lies in. t should be the directory's time
// (PROTOCOL "Replay"), not the machine's own.
func Step(t time.Time) uint32 { return uint32(t.Unix() / int64(stepSize/time.Second)) }

// info is what HPKE binds a layer to.
func info(id ID, number byte) []byte {
	b := make([]byte, 0, len(createInfo)+len(id)+1)
	b = append(b, createInfo...)
	b = append(b, id[:]...)
	return append(b, number)
}

// transcript is t of the package comment. body is CREATE behind its first byte.
func transcript(info, body []byte) (t [sha256.Size]byte) {
	h := sha256.New()
	h.Write(info)
	h.Write(body)
	h.Sum(t[:0])
	return t
}

// exports are the secrets that both ends of one HPKE layer share.
type exports struct{ onion, hop, back, answer [keySize]byte }

// exporter is a *hpke.Sender or a *hpke.Recipient.
type exporter interface {
	Export(label string, n int) ([]byte, error)
}

var (
	_ exporter = (*hpke.Sender)(nil)
	_ exporter = (*hpke.Recipient)(nil)
)

func exportAll(x exporter) (e exports, err error) {
	for _, v := range []struct {
		label string
		to    *[keySize]byte
	}{{exportOnion, &e.onion}, {exportHop, &e.hop}, {exportBack, &e.back}, {exportAnswer, &e.answer}} {
		b, err := x.Export(v.label, keySize)
		if err != nil {
			return exports{}, err
		}
		copy(v.to[:], b)
		clear(b)
	}
	return e, nil
}

// keystream returns AES-256-CTR under key from an IV of zeros. Each key makes
// one stream only, which is what lets the IV be zero.
func keystream(key *[keySize]byte) cipher.Stream {
	return cipher.NewCTR(newAES(key[:]), make([]byte, aes.BlockSize))
}

func newAES(key []byte) cipher.Block {
	b, err := aes.NewCipher(key)
	if err != nil {
		panic(err) // the key's length is ours
	}
	return b
}

func newGCM(key []byte) cipher.AEAD {
	a, err := cipher.NewGCM(newAES(key))
	if err != nil {
		panic(err)
	}
	return a
}
