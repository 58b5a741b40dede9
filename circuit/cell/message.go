package cell

import "fmt"

// Verb says what a message inside a circuit's innermost layer is.
type Verb uint8

// The verbs between a circuit's owner and its last hop. Stream number 0 speaks
// of the circuit itself.
const (
	Register   Verb = 1  // owner to meeting relay, stream 0: key, signature (tracker/announce says which)
	Registered Verb = 2  // its answer, stream 0: the token it is known under
	Open       Verb = 3  // Token, then the first handshake message (package stream)
	Opened     Verb = 4  // the second handshake message
	Refused    Verb = 5  // a Reason; the stream is over
	Record     Verb = 6  // one sealed record of the stream (package stream)
	Allow      Verb = 7  // meeting relay to sender: records allowed so far on this stream, cumulative, uint64
	Close      Verb = 8  // a Reason; the stream is over
	Request    Verb = 9  // a question to the last hop: a kind byte, then its body
	Answer     Verb = 10 // one part of the reply: 1 when more follows or 0, then bytes
)

// TokenSize is the length of what OPEN names a registration by, bytes.
const TokenSize = 32

// StreamFloor is how many records a stream may send before its meeting relay
// has allowed any.
const StreamFloor = 8

// Reserve is the circuit credit that data leaves to control messages, cells.
const Reserve = 4

// Message is one message of a circuit's innermost layer. Body is not copied.
type Message struct {
	Stream uint32
	Verb   Verb
	Body   []byte
}

// Put writes m into a payload. Bytes behind m's body are cleared.
func (m Message) Put(payload []byte) {
	if len(m.Body) > MaxMessage {
		panic(fmt.Sprintf("cell: message of %d bytes, at most %d", len(m.Body), MaxMessage))
	}
	payload = payload[:Payload]
	n := copy(payload[HeaderSize:], m.Body)
	clear(payload[HeaderSize+n:])
	put(payload, m.Stream, uint8(m.Verb), n)
}

// ParseMessage reads the message in payload; its Body points into payload.
func ParseMessage(payload []byte) (Message, error) {
	stream, verb, n, err := parse(payload)
	if err != nil {
		return Message{}, err
	}
	if verb == 0 || Verb(verb) > Answer {
		return Message{}, fmt.Errorf("cell: unknown verb %d", verb)
	}
	if n > len(payload)-HeaderSize {
		return Message{}, fmt.Errorf("cell: message of %d bytes in %d", n, len(payload)-HeaderSize)
	}
	return Message{stream, Verb(verb), payload[HeaderSize : HeaderSize+n]}, nil
}

// Append appends m without padding, as the early box of CREATE carries it.
func (m Message) Append(b []byte) []byte {
	at := len(b)
	b = append(b, make([]byte, HeaderSize)...)
	put(b[at:], m.Stream, uint8(m.Verb), len(m.Body))
	return append(b, m.Body...)
}

// PutStream rewrites the stream number of the message in payload: all that a
// meeting relay changes.
func PutStream(payload []byte, stream uint32) {
	_ = payload[3]
	payload[0], payload[1], payload[2], payload[3] = byte(stream>>24), byte(stream>>16), byte(stream>>8), byte(stream)
}

// Reason is all that crosses the wire of why something failed. Text stays in
// the log of the one who failed it.
type Reason uint8

// The reasons. OK is also what DESTROY carries when passed on.
const (
	OK           Reason = 0 // no reason, or no failure
	Protocol     Reason = 1 // the other side broke the protocol
	Unreachable  Reason = 2 // the next hop can't be reached
	UnknownHop   Reason = 3 // the next hop is not in this relay's directory, or is this relay
	Busy         Reason = 4 // limits reached
	Replayed     Reason = 5 // this CREATE was seen before, or is too old
	UnknownToken Reason = 6 // nobody is registered under that token
	Overrun      Reason = 7 // more sent than allowed
	Gone         Reason = 8 // the other end closed, or its circuit died
	BadRequest   Reason = 9 // the last hop doesn't serve this, or can't read it
	Done         Reason = 10
)

var reasons = [...]string{"ok", "protocol", "unreachable", "unknown hop", "busy", "replayed", "unknown token", "overrun", "gone", "bad request", "done"}

func (r Reason) String() string {
	if int(r) < len(reasons) {
		return reasons[r]
	}
	return fmt.Sprintf("reason %d", uint8(r))
}

// The kinds of REQUEST: its first byte.
const (
	RequestAnnounce byte = 1 // package tracker/announce
	RequestViews    byte = 2 // package tracker/directory
	RequestPublish  byte = 3 // package tracker/directory
	RequestEcho     byte = 4 // answered with as many zero bytes as its uint32 asks for, at most MaxEcho
)

// MaxEcho bounds what one echo request makes a relay send, bytes.
const MaxEcho = 1 << 20
