package dht

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/anacrolix/torrent/bencode"
)

// query is a packet from the client.
type query struct {
	Txn    string        `bencode:"t"`
	Kind   string        `bencode:"y"`
	Method string        `bencode:"q"`
	Args   bencode.Bytes `bencode:"a"`
}

// arguments are those of every method that is served.
type arguments struct {
	ID       string   `bencode:"id"`
	Target   string   `bencode:"target"`
	InfoHash string   `bencode:"info_hash"`
	Token    string   `bencode:"token"`
	Port     int64    `bencode:"port"`
	Implied  int64    `bencode:"implied_port"`
	Seed     int64    `bencode:"seed"`
	Want     []string `bencode:"want,ignore_unmarshal_type_error"`
}

// result is the "r" of a reply. A nil slice is left out.
type result struct {
	ID     string   `bencode:"id"`
	Nodes  []byte   `bencode:"nodes,omitempty"`
	Nodes6 []byte   `bencode:"nodes6,omitempty"`
	Token  []byte   `bencode:"token,omitempty"`
	Values [][]byte `bencode:"values,omitempty"`
}

type reply struct {
	IP     []byte `bencode:"ip,omitempty"`
	Result result `bencode:"r"`
	Txn    string `bencode:"t"`
	Kind   string `bencode:"y"` // "r"
}

type failure struct {
	Error []any  `bencode:"e"` // code, text
	IP    []byte `bencode:"ip,omitempty"`
	Txn   string `bencode:"t"`
	Kind  string `bencode:"y"` // "e"
}

// greeting is a query of ours.
type greeting struct {
	Args   greetingArgs `bencode:"a"`
	Method string       `bencode:"q"`
	Txn    string       `bencode:"t"`
	Kind   string       `bencode:"y"` // "q"
}

type greetingArgs struct {
	ID string `bencode:"id"`
}

// The error codes of BEP 5.
const (
	codeProtocol = 203
	codeMethod   = 204
)

// parse reads one packet. Nothing is decoded before its form is known to be
// small and sound.
func parse(b []byte) (query, error) {
	if len(b) > MaxPacket {
		return query{}, fmt.Errorf("%w: %d bytes, at most %d", ErrMalformed, len(b), MaxPacket)
	}
	if !IsPacket(b) {
		return query{}, fmt.Errorf("%w: no dictionary", ErrMalformed)
	}
	if err := check(b); err != nil {
		return query{}, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	var q query
	if err := bencode.Unmarshal(b, &q); err != nil {
		return query{}, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	if len(q.Txn) == 0 || len(q.Txn) > maxTxn {
		return query{}, fmt.Errorf("%w: transaction id of %d bytes, want 1 to %d", ErrMalformed, len(q.Txn), maxTxn)
	}
	return q, nil
}

// arguments returns q's.
func (q query) arguments() (a arguments, err error) {
	if len(q.Args) == 0 {
		return a, errors.New("no arguments")
	}
	if err = bencode.Unmarshal(q.Args, &a); err != nil {
		return a, errors.New("unreadable arguments")
	}
	if len(a.ID) != 20 {
		return a, errors.New("id is not 20 bytes")
	}
	return a, nil
}

// maxDepth is more than any message of the DHT needs: dictionary, arguments, list, and one.
const maxDepth = 5

// check says if b is exactly one bencoded value, nested maxDepth deep at most.
func check(b []byte) error {
	rest, err := skip(b, maxDepth)
	if err == nil && len(rest) > 0 {
		err = fmt.Errorf("%d bytes behind the end", len(rest))
	}
	return err
}

// skip returns what follows the value that b starts with.
func skip(b []byte, depth int) ([]byte, error) {
	if len(b) == 0 {
		return nil, errCut
	}
	switch c := b[0]; {
	case c >= '0' && c <= '9':
		return skipString(b)
	case c == 'i':
		return skipInt(b[1:])
	case c != 'l' && c != 'd':
		return nil, fmt.Errorf("byte %#02x where a value starts", c)
	}
	if depth == 0 {
		return nil, fmt.Errorf("nested deeper than %d", maxDepth)
	}
	dict, rest := b[0] == 'd', b[1:]
	for key := dict; ; key = dict && !key {
		if len(rest) == 0 {
			return nil, errCut
		}
		if rest[0] == 'e' {
			if dict && !key {
				return nil, errors.New("a key without a value")
			}
			return rest[1:], nil
		}
		var err error
		if key {
			rest, err = skipString(rest)
		} else {
			rest, err = skip(rest, depth-1)
		}
		if err != nil {
			return nil, err
		}
	}
}

var errCut = errors.New("cut short")

func skipString(b []byte) ([]byte, error) {
	n, i := 0, 0
	for ; i < len(b) && b[i] >= '0' && b[i] <= '9'; i++ {
		if n = n*10 + int(b[i]-'0'); n > MaxPacket {
			return nil, fmt.Errorf("string longer than %d", MaxPacket)
		}
	}
	switch {
	case i == len(b):
		return nil, errCut
	case i == 0 || b[i] != ':' || i > 1 && b[0] == '0':
		return nil, errors.New("bad string length")
	case n > len(b)-i-1:
		return nil, errCut
	}
	return b[i+1+n:], nil
}

// skipInt starts behind the 'i'. 18 digits fit every integer type of 64 bits.
func skipInt(b []byte) ([]byte, error) {
	digits := bytes.TrimPrefix(b, []byte("-"))
	n := 0
	for n < len(digits) && digits[n] >= '0' && digits[n] <= '9' {
		n++
	}
	switch {
	case n == len(digits):
		return nil, errCut
	case digits[n] != 'e' || n == 0 || n > 18:
		return nil, errors.New("bad integer")
	case digits[0] == '0' && (n > 1 || len(digits) < len(b)):
		return nil, errors.New("integer with a leading zero, or minus zero")
	}
	return digits[n+1:], nil
}
