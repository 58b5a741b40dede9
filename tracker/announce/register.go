package announce

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/shoal-p2p/shoal/circuit/onion"
)

// Register is what a member says to a meeting relay, over a circuit that stands,
// so that visitors who know R find it there.
type Register struct {
	R   [32]byte
	Day Day
	Sig [ed25519.SignatureSize]byte
}

// SignRegister signs m's registration at relay under day, for the one circuit
// whose confirm it is: nobody can take it to another.
func SignRegister(m *Member, relay onion.ID, confirm [32]byte, day Day) Register {
	key := m.RelayKey(relay, day)
	r := Register{R: public(key), Day: day}
	copy(r.Sig[:], ed25519.Sign(key, r.signed(relay, confirm)))
	return r
}

// VerifyRegister reports whether r, received by relay over the circuit with
// this confirm, was signed by its own R for today or yesterday, and returns the
// token that visitors will ask for.
func VerifyRegister(r Register, relay onion.ID, confirm [32]byte, now time.Time) (token [32]byte, err error) {
	if today := dayOf(now); r.Day != today && r.Day+1 != today {
		return token, fmt.Errorf("announce: registration for day %d, today is %d", r.Day, today)
	}
	if !ed25519.Verify(r.R[:], r.signed(relay, confirm), r.Sig[:]) {
		return token, errors.New("announce: registration not signed by its own key for this circuit")
	}
	return Token(r.R, relay, r.Day), nil
}

// RegistrationEnds returns when a registration under day stops being valid.
func RegistrationEnds(day Day) time.Time {
	return time.Unix((int64(day)+2)*daySeconds, 0)
}

// Token returns what a visitor opens with to meet the member that registered R
// at relay under day.
func Token(r [32]byte, relay onion.ID, day Day) [32]byte {
	b := append([]byte(labelToken), r[:]...)
	b = append(b, relay[:]...)
	return sha256.Sum256(append(b, day.bytes()...))
}

func (r *Register) signed(relay onion.ID, confirm [32]byte) []byte {
	b := append([]byte(labelRegister), relay[:]...)
	b = append(b, confirm[:]...)
	return append(b, r.Day.bytes()...)
}

// Append appends r's wire form to b.
func (r Register) Append(b []byte) []byte {
	b = append(b, r.R[:]...)
	b = binary.BigEndian.AppendUint32(b, uint32(r.Day))
	return append(b, r.Sig[:]...)
}

// ParseRegister reads what Append wrote and keeps no reference to b.
func ParseRegister(b []byte) (r Register, err error) {
	if len(b) != registerSize {
		return Register{}, fmt.Errorf("announce: registration of %d bytes, want %d", len(b), registerSize)
	}
	in := reader{b: b}
	r.R, r.Day = in.key(), Day(in.uint32())
	copy(r.Sig[:], in.b)
	return r, nil
}
