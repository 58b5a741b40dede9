package onion

import (
	"crypto/aes"
	"crypto/cipher"
	"fmt"
	"testing"

	"github.com/shoal-p2p/shoal/circuit/cell"
)

// BenchmarkCellSize chose cell.Payload. It carries data through the layers of a
// whole path in cells of different sizes: the stream's own layer, and sealing
// and opening one layer for each of six relays. For each size it prints the
// throughput, the share of the wire's bytes that is data, and what an idle
// circuit may make one relay hold: its floor of six cells.
//
// Throughput hardly rises beyond 4 KiB, where the fixed cost of a cell is a few
// percent; what an idle circuit holds, and what a small message pays, doubles
// with every doubling of the size.
func BenchmarkCellSize(b *testing.B) {
	const (
		relays = 6
		floor  = 4 + cell.Reserve // link.Floor, which is above this package
	)
	for payload := 512; payload <= 16<<10; payload *= 2 {
		b.Run(fmt.Sprint(payload), func(b *testing.B) {
			var layers [1 + relays]cipher.AEAD
			for i := range layers {
				layers[i] = sizeAEAD(b, byte(i))
			}
			size := payload + cell.MaxHops*cell.TagSize
			data := (payload-cell.HeaderSize)/aes.BlockSize*aes.BlockSize - cell.TagSize - 3
			buf := make([]byte, size)
			var nonce [12]byte
			b.SetBytes(int64(data))
			for b.Loop() {
				for _, l := range layers { // sealed by an end or a relay, opened by the next
					sealed := l.Seal(buf[:0], nonce[:], buf[:payload], nil)
					if _, err := l.Open(sealed[:0], nonce[:], sealed, nil); err != nil {
						b.Fatal(err)
					}
				}
			}
			b.ReportMetric(100*float64(data)/float64(size+cell.HeaderSize), "data-%")
			b.ReportMetric(float64(floor*size)/1024, "idle-KiB")
		})
	}
}

func sizeAEAD(b *testing.B, key byte) cipher.AEAD {
	block, err := aes.NewCipher(append(make([]byte, 31), key))
	if err != nil {
		b.Fatal(err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		b.Fatal(err)
	}
	return aead
}
