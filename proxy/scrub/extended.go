package scrub

import (
	"math/bits"
	"sync/atomic"

	"github.com/anacrolix/torrent/bencode"
)

// shownMetadata is the number under which ut_metadata is shown to everyone.
const shownMetadata = 1

// maxMetadataSize is the largest metadata_size that is passed, bytes.
const maxMetadataSize = 1 << 30

// numbers are what one side wants to receive extended messages as. Written by
// the direction it sends in, read by the other.
type numbers struct {
	metadata atomic.Uint32 // 0: not at all
}

// extended is what one side's extended handshakes have said so far. A later
// one changes what it mentions (BEP 10).
type extended struct {
	metadata   int // the number for ut_metadata; 0: none
	mentioned  bool
	size       int64 // of the metadata
	reqq       int
	uploadOnly bool
}

// with returns what e becomes with the handshake in b, and false if b is none.
func (e extended) with(b []byte) (_ extended, ok bool) {
	e.size = 0
	if e.reqq == 0 { // the first: a later one that says nothing takes nothing back
		e.reqq = usualReqq
	}
	_, err := eachField(b, func(key string, value []byte) {
		if key == "m" {
			eachField(value, e.number)
			return
		}
		n, ok := integer(value)
		switch {
		case !ok:
		case key == "metadata_size" && n > 0 && n <= maxMetadataSize:
			e.size = n
		case key == "reqq" && n > 0:
			e.reqq = shownReqq(n)
		case key == "upload_only":
			e.uploadOnly = n != 0
		}
	})
	return e, err == nil
}

// number takes one entry of m.
func (e *extended) number(name string, value []byte) {
	if n, ok := integer(value); ok && name == "ut_metadata" && n >= 0 && n <= 255 {
		e.metadata = int(n)
		e.mentioned = e.mentioned || n > 0
	}
}

// bytes returns the handshake that the receiver sees.
func (e *extended) bytes() []byte {
	shown := struct {
		M            map[string]int `bencode:"m"`
		MetadataSize int64          `bencode:"metadata_size,omitempty"`
		Reqq         int            `bencode:"reqq"`
		UploadOnly   int            `bencode:"upload_only"`
	}{M: map[string]int{}, MetadataSize: e.size, Reqq: e.reqq}
	if e.uploadOnly {
		shown.UploadOnly = 1
	}
	switch {
	case e.metadata != 0:
		shown.M["ut_metadata"] = shownMetadata
	case e.mentioned: // and taken back
		shown.M["ut_metadata"] = 0
	}
	return bencode.MustMarshal(shown)
}

// usualReqq is what clients ask for of one that doesn't say how many requests
// it takes, and as many as most ask for of any.
const usualReqq = 500

// shownReqq hides which program says n, and never promises more than n.
func shownReqq(n int64) int {
	switch {
	case n >= usualReqq:
		return usualReqq
	case n >= 250: // the default in BEP 10
		return 250
	}
	return 1 << (bits.Len64(uint64(n)) - 1)
}

// metadata splits a ut_metadata message into its dictionary, written anew,
// and the data behind it, which only a piece of metadata has.
func metadata(b []byte) (dict, data []byte, ok bool) {
	var shown struct {
		Type      *int64 `bencode:"msg_type"`
		Piece     *int64 `bencode:"piece"`
		TotalSize *int64 `bencode:"total_size,omitempty"`
	}
	n, err := eachField(b, func(key string, value []byte) {
		v, ok := integer(value)
		switch {
		case !ok || v < 0:
		case key == "msg_type":
			shown.Type = &v
		case key == "piece":
			shown.Piece = &v
		case key == "total_size":
			shown.TotalSize = &v
		}
	})
	if err != nil || shown.Type == nil || shown.Piece == nil {
		return nil, nil, false
	}
	const request, piece, reject = 0, 1, 2
	switch *shown.Type {
	case piece:
		data = b[n:]
	case request, reject:
		shown.TotalSize = nil
	default:
		return nil, nil, false
	}
	return bencode.MustMarshal(shown), data, true
}
