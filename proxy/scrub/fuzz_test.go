package scrub

import (
	"bytes"
	"encoding/binary"
	"slices"
	"testing"
)

// FuzzClient and FuzzFar feed anything in either direction, after a handshake
// or in its place, in two ways of cutting it up.
func FuzzClient(f *testing.F) {
	fuzz(f, func(out, in *Scrubber) (s, other *Scrubber) { return out, in })
}

func FuzzFar(f *testing.F) { fuzz(f, func(out, in *Scrubber) (s, other *Scrubber) { return in, out }) }

func fuzz(f *testing.F, choose func(out, in *Scrubber) (s, other *Scrubber)) {
	for _, x := range transcripts(f) {
		f.Add(true, uint16(7), x.sent[helloSize:])
		f.Add(false, uint16(1), append(append(x.sent[:hashAt:hashAt], testHash[:]...), x.sent[idAt:]...))
	}
	f.Add(true, uint16(100), busyStream()[helloSize:])
	f.Add(true, uint16(3), bytes.Repeat(extendedMessage(0, "de"), 100))
	f.Add(true, uint16(1), []byte("\x01\x00\x00\x01"))
	f.Add(true, uint16(2), slices.Concat(message(2, ""), message(5, "\x81"), message(5, "\xc1\x01")))
	f.Fuzz(func(t *testing.T, greeted bool, size uint16, wire []byte) {
		if greeted {
			wire = append(hello(testHash, allReserved, ID{}), wire...)
		}
		run := func(size int) ([]byte, error) {
			s, other := choose(NewPair(testConfig))
			if _, err := other.Feed(append(hello(testHash, allReserved, ID{}), extendedMessage(0, "d1:md11:ut_metadatai3eee")...)); err != nil {
				t.Fatal(err)
			}
			var all []byte
			for rest := wire; len(rest) > 0; {
				n := min(size, len(rest))
				got, err := s.Feed(rest[:n])
				if err != nil {
					return all, err
				}
				all = append(all, got...)
				rest = rest[n:]
				if cap(s.body) > 2*maxExtended {
					t.Fatalf("%d bytes are kept", cap(s.body))
				}
			}
			return all, nil
		}
		got, err := run(int(size) + 1)
		single, errSingle := run(1)
		// What came before an error depends on where the parts end.
		if err != errSingle || err == nil && !bytes.Equal(got, single) {
			t.Fatalf("in parts: %q, %v\nbyte by byte: %q, %v", got, err, single, errSingle)
		}
		if most := len(wire) + maxHandshakes*100 + 8*9*min(len(wire), maxBitfield); len(single) > most {
			t.Errorf("%d bytes became %d", len(wire), len(single))
		}
		checkSeen(t, single)
	})
}

// checkSeen fails unless b is the start of a peer stream that reveals nothing.
func checkSeen(t *testing.T, b []byte) {
	t.Helper()
	if len(b) == 0 {
		return
	}
	if len(b) < helloSize || checkHello(b[:helloSize], &testHash) != nil {
		t.Fatalf("a stream begins with %q", b)
	}
	for i, bits := range b[reservedAt:hashAt] {
		if bits&^reserved[i] != 0 {
			t.Errorf("reserved byte %d is %x", i, bits)
		}
	}
	if id := ID(b[idAt:helloSize]); id != testConfig.Self && id != testConfig.Peer {
		t.Errorf("a peer id of %q", id[:])
	}
	begun := false
	for b = b[helloSize:]; len(b) > 0; {
		// A head comes out when it is decided, its body as it comes.
		if len(b) < 4 {
			t.Fatalf("half a length %x", b)
		}
		n := binary.BigEndian.Uint32(b)
		if n > MaxMessage {
			t.Fatalf("a message of %d bytes", n)
		}
		if n == 0 {
			b = b[4:]
			continue
		}
		if len(b) < 5 {
			t.Fatalf("half a head %x", b)
		}
		switch b[4] {
		case msgPort, msgAllowedFast:
			t.Errorf("message %d", b[4])
		case msgExtended:
			if len(b) < 4+int(n) {
				t.Fatalf("half an extended message %q", b)
			}
			if n < 3 || b[5] != 0 && b[5] != 3 {
				t.Errorf("extended message %q", b[:4+n])
			}
			if size := extent(b[6:4+n], 0); size == 0 || b[5] == 0 && size != int(n)-2 {
				t.Errorf("an extended message that is no dictionary: %q", b[:4+n])
			}
		case msgBitfield:
			if begun {
				t.Errorf("a late bitfield %q", b[:min(len(b), 4+int(n))])
			}
		}
		begun = begun || b[4] != msgExtended
		b = b[min(len(b), 4+int(n)):]
	}
}

func FuzzBencode(f *testing.F) {
	for _, s := range []string{"de", "d1:md11:ut_metadatai3eee", "d1:ai1e1:bl1:c1:de1:ede1:fi-9ee", "d1:a99:e", "d1:ai99999999999999999999ee", "d01:ai1ee", "di1ei1ee", "d1:a"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		n, err := eachField(b, func(key string, value []byte) {
			if extent(value, 0) != len(value) {
				t.Errorf("a value of %q", value)
			}
			integer(value)
			eachField(value, func(string, []byte) {})
		})
		if (err == nil) != (n > 0) || n > len(b) || n > 0 && b[n-1] != 'e' {
			t.Errorf("eachField = %d, %v", n, err)
		}
		if e, ok := (extended{}).with(b); ok {
			if again, ok := (extended{}).with(e.bytes()); !ok || again.size != e.size || again.reqq != e.reqq || again.uploadOnly != e.uploadOnly {
				t.Errorf("%q is written as %q and read as %+v", b, e.bytes(), again)
			}
		}
		if dict, data, ok := metadata(b); ok {
			again, _, ok := metadata(dict)
			if !ok || !bytes.Equal(again, dict) || len(dict)+len(data) > len(b) {
				t.Errorf("%q is written as %q, %q", b, dict, data)
			}
		}
	})
}
