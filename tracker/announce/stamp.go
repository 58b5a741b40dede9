package announce

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math/bits"
)

// MaxStampBits is the hardest stamp that may be asked for: 16 million hashes,
// a second or two of one core, once per swarm, tracker and day.
const MaxStampBits = 24

// Mint finds a stamp of the given difficulty, in leading zero bits of a hash
// over name and T. The name stands for the day too: it has another every day.
// Each bit doubles the work; 0 is free.
func Mint(ctx context.Context, name, t [32]byte, difficulty int) (uint64, error) {
	if difficulty < 0 || difficulty > MaxStampBits {
		return 0, fmt.Errorf("announce: stamp of %d bits, at most %d", difficulty, MaxStampBits)
	}
	if difficulty == 0 {
		return 0, nil
	}
	var start [8]byte
	rand.Read(start[:])
	p := newPuzzle(name, t)
	for stamp, n := binary.BigEndian.Uint64(start[:]), 0; ; stamp, n = stamp+1, n+1 {
		if n%4096 == 0 && ctx.Err() != nil {
			return 0, ctx.Err()
		}
		if p.solved(stamp, difficulty) {
			return stamp, nil
		}
	}
}

// Check reports whether stamp has the given difficulty for name and T.
func Check(name, t [32]byte, stamp uint64, difficulty int) bool {
	if difficulty <= 0 {
		return true
	}
	p := newPuzzle(name, t)
	return p.solved(stamp, difficulty)
}

const puzzleSize = len(labelStamp) + 32 + 32 + 8

type puzzle [puzzleSize]byte

func newPuzzle(name, t [32]byte) (p puzzle) {
	n := copy(p[:], labelStamp)
	n += copy(p[n:], name[:])
	copy(p[n:], t[:])
	return p
}

func (p *puzzle) solved(stamp uint64, difficulty int) bool {
	binary.BigEndian.PutUint64(p[puzzleSize-8:], stamp)
	sum := sha256.Sum256(p[:])
	return bits.LeadingZeros64(binary.BigEndian.Uint64(sum[:])) >= difficulty
}
