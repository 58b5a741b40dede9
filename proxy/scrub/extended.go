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

// extended is what one side's extended handshakes have said so far.
type extended struct {
	count      int  // handshakes taken
	mentioned  bool // ut_metadata was shown once, so that its end must be too
	size       int64
	reqq       int
	uploadOnly bool
}

// read takes over what the handshake in b says, and the sender's numbers. A b
// that no client could read is not taken.
func (e *extended) read(b []byte, sender *numbers) (ok bool) {
	e.size, e.reqq = 0, shownReqq(defaultReqq)
	_, err := eachField(b, func(key string, value []byte) {
		switch key {
		case "m":
			e.readNumbers(value, sender)
		case "metadata_size":
			if n, ok := integer(value); ok && n > 0 && n <= maxMetadataSize {
				e.size = n
			}
		case "reqq":
			if n, ok := integer(value); ok && n > 0 {
				e.reqq = shownReqq(n)
			}
		case "upload_only":
			if n, ok := integer(value); ok {
				e.uploadOnly = n != 0
			}
		}
	})
	return err == nil
}

func (e *extended) readNumbers(m []byte, sender *numbers) {
	eachField(m, func(key string, value []byte) {
		if n, ok := integer(value); ok && key == "ut_metadata" && n >= 0 && n <= 255 {
			e.mentioned = e.mentioned || n > 0
			sender.metadata.Store(uint32(n))
		}
	})
}

// append writes the handshake that the receiver sees.
func (e *extended) append(b []byte, sender *numbers) []byte {
	var uploadOnly int
	if e.uploadOnly {
		uploadOnly = 1
	}
	shown := struct {
		M            map[string]int `bencode:"m"`
		MetadataSize int64          `bencode:"metadata_size,omitempty"`
		Reqq         int            `bencode:"reqq"`
		UploadOnly   int            `bencode:"upload_only"`
	}{map[string]int{}, e.size, e.reqq, uploadOnly}
	if sender.metadata.Load() != 0 {
		shown.M["ut_metadata"] = shownMetadata
	} else if e.mentioned {
		shown.M["ut_metadata"] = 0
	}
	return append(b, bencode.MustMarshal(shown)...)
}

// defaultReqq is what a client that does not say takes (BEP 10).
const defaultReqq = 250

// shownReqq hides which program says n, and never promises more than n. 500
// is as many as common clients ask for unless told less.
func shownReqq(n int64) int {
	switch {
	case n >= 500:
		return 500
	case n >= 250:
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
