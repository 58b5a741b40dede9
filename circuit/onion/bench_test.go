package onion

import (
	"crypto/aes"
	"crypto/cipher"
	"fmt"
	"testing"

	"golang.org/x/crypto/chacha20poly1305"

	"github.com/shoal-p2p/shoal/circuit/cell"
)

func BenchmarkWrap(b *testing.B) {
	for n := 1; n <= cell.MaxHops; n++ {
		hops := hopsOf(newRelays(b, n))
		b.Run(fmt.Sprintf("hops=%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, _, err := Wrap(hops, testStep, nil); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkPeel is all that one CREATE and its CREATED cost a relay. The last
// hop saves the next CREATE.
func BenchmarkPeel(b *testing.B) {
	relays := newRelays(b, 2)
	create, _, err := Wrap(hopsOf(relays), testStep, nil)
	if err != nil {
		b.Fatal(err)
	}
	inner := carry(b, relays, create)
	creates := [][]byte{create, relays[0].peeled.Create}
	for i, name := range []string{"middle", "last"} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				p, err := Peel(creates[i], relays[i].id, relays[i].key)
				if err != nil {
					b.Fatal(err)
				}
				if _, err := p.Accept(AES256GCM); err != nil {
					b.Fatal(err)
				}
				p.Created(inner)
			}
		})
	}
	// What garbage costs the relay until it knows.
	bad := append([]byte(nil), create...)
	bad[len(bad)-1] ^= 1
	b.Run("refused", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := Peel(bad, relays[0].id, relays[0].key); err == nil {
				b.Fatal("accepted")
			}
		}
	})
}

func BenchmarkFinish(b *testing.B) {
	for n := 1; n <= cell.MaxHops; n++ {
		relays := newRelays(b, n)
		create, p, err := Wrap(hopsOf(relays), testStep, nil)
		if err != nil {
			b.Fatal(err)
		}
		created := carry(b, relays, create)
		b.Run(fmt.Sprintf("hops=%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := copyPending(p).Finish(created); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// benchCircuit returns a circuit whose relays all have one suite.
func benchCircuit(b *testing.B, n int, s Suite) (*Circuit, []*testRelay) {
	relays := newRelays(b, n)
	for _, r := range relays {
		r.suite = s
	}
	return build(b, relays, 0), relays
}

// BenchmarkSeal is what a payload costs the client to send.
func BenchmarkSeal(b *testing.B) {
	for _, s := range []Suite{AES256GCM, ChaCha20} {
		for n := 1; n <= cell.MaxHops; n++ {
			c, _ := benchCircuit(b, n, s)
			x := payload(0)
			b.Run(fmt.Sprintf("%v/hops=%d", s, n), func(b *testing.B) {
				b.SetBytes(cell.Payload)
				b.ReportAllocs()
				for b.Loop() {
					c.Seal(x)
				}
			})
		}
	}
}

// BenchmarkOpen is what a payload costs the client to receive, and the copies
// that bring the sealed cell back each time.
func BenchmarkOpen(b *testing.B) {
	for _, s := range []Suite{AES256GCM, ChaCha20} {
		for n := 1; n <= cell.MaxHops; n++ {
			c, relays := benchCircuit(b, n, s)
			sealed := payload(0)
			around(relays[n-1].layer, sealed)
			opened := new(*sealed)
			backward(relays, sealed, n-2, 0)
			b.Run(fmt.Sprintf("%v/hops=%d", s, n), func(b *testing.B) {
				b.SetBytes(cell.Payload)
				b.ReportAllocs()
				var x [cell.Size]byte
				for b.Loop() {
					x = *sealed
					for i := range c.masks {
						c.masks[i].apply(&x, &x)
					}
					c.backward.count, x = 0, *opened
					if err := c.backward.Open(x[:], x[:c.sizes[n-1]]); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// BenchmarkForward is what a cell towards the last hop costs a relay, with the
// copy that brings the sealed cell back each time.
func BenchmarkForward(b *testing.B) {
	for _, s := range []Suite{AES256GCM, ChaCha20} {
		c, relays := benchCircuit(b, 2, s)
		sealed := payload(0)
		c.Seal(sealed)
		l := relays[0].layer
		b.Run(s.String(), func(b *testing.B) {
			b.SetBytes(cell.Payload)
			b.ReportAllocs()
			var x [cell.Size]byte
			for b.Loop() {
				l.forward.count = 0
				x = *sealed
				if err := l.Forward(&x, &x); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkBackward is what a cell towards the client costs a relay.
func BenchmarkBackward(b *testing.B) {
	for _, s := range []Suite{AES256GCM, ChaCha20} {
		_, relays := benchCircuit(b, 2, s)
		x := payload(0)
		b.Run(s.String(), func(b *testing.B) {
			b.SetBytes(cell.Payload)
			b.ReportAllocs()
			for b.Loop() {
				around(relays[0].layer, x)
			}
		})
	}
}

// BenchmarkAEAD is the choice of the AEAD by itself, one layer of a cell.
func BenchmarkAEAD(b *testing.B) {
	gcm := func(key int) cipher.AEAD {
		block, err := aes.NewCipher(make([]byte, key))
		if err != nil {
			b.Fatal(err)
		}
		a, err := cipher.NewGCM(block)
		if err != nil {
			b.Fatal(err)
		}
		return a
	}
	chacha, err := chacha20poly1305.New(make([]byte, 32))
	if err != nil {
		b.Fatal(err)
	}
	for _, v := range []struct {
		name string
		aead cipher.AEAD
	}{{"aes-128-gcm", gcm(16)}, {"aes-256-gcm", gcm(32)}, {"chacha20-poly1305", chacha}} {
		var x [cell.Size]byte
		nonce := make([]byte, 12)
		b.Run(v.name+"/seal", func(b *testing.B) {
			b.SetBytes(cell.Payload)
			for b.Loop() {
				v.aead.Seal(x[:0], nonce, x[:cell.Size-cell.TagSize], nil)
			}
		})
		sealed := v.aead.Seal(nil, nonce, x[:cell.Size-cell.TagSize], nil)
		b.Run(v.name+"/open", func(b *testing.B) {
			b.SetBytes(cell.Payload)
			for b.Loop() {
				copy(x[:], sealed)
				if _, err := v.aead.Open(x[:0], nonce, x[:], nil); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkLayer shows in B/op what one circuit's layer holds of a relay's
// memory, give or take what the garbage collector gets back at once.
func BenchmarkLayer(b *testing.B) {
	for _, s := range []Suite{AES256GCM, ChaCha20} {
		b.Run(s.String(), func(b *testing.B) {
			b.ReportAllocs()
			var key [keySize]byte
			for b.Loop() {
				newRelayLayer(s, key, key, key, cell.Size, false)
			}
		})
	}
}

// BenchmarkReplayCache shows in B/op what one entry holds.
func BenchmarkReplayCache(b *testing.B) {
	c := NewReplayCache(1 << 30)
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		c.Add(100, 100, tag(n))
		n++
	}
}
