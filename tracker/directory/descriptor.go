package directory

import (
	"bytes"
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/shoal-p2p/shoal/circuit/onion"
)

const (
	maxAddrs   = 4
	maxKeys    = 2
	MaxFamily  = 16 // relays of one owner in a descriptor, besides it
	maxContact = 128
	maxProgram = 32

	addrSize = 1 + 16 + 2
	keySize  = 1 + onion.PublicKeySize

	// MaxDescriptor is the longest descriptor, bytes: it fits one message.
	MaxDescriptor = 1 + 32 + 8 + 8 + 1 + 1 + maxAddrs*addrSize + 1 + maxKeys*keySize + 1 + MaxFamily*32 +
		1 + maxContact + 1 + maxProgram + ed25519.SignatureSize
)

// Descriptor is what a relay says of itself.
type Descriptor struct {
	ID        onion.ID
	Published int64            // seconds since 1970
	Addrs     []netip.AddrPort // where it listens, the preferred first
	Keys      []onion.PublicKey
	Suite     onion.Suite
	Rate      uint64     // bytes per second that it offers
	Family    []onion.ID // relays of the same owner, ascending; each should say so too
	Contact   string     // how to reach the owner, or empty
	Program   string     // the version of the program

	Sig [ed25519.SignatureSize]byte
}

// Sign signs d with the key whose public half becomes its ID, after putting its
// family in order and checking that ParseDescriptor will take it.
func (d *Descriptor) Sign(key ed25519.PrivateKey) error {
	d.ID = onion.ID(key.Public().(ed25519.PublicKey))
	d.Family = slices.Clone(d.Family) // the caller's own
	slices.SortFunc(d.Family, func(a, b onion.ID) int { return bytes.Compare(a[:], b[:]) })
	d.Family = slices.DeleteFunc(slices.Compact(d.Family), func(id onion.ID) bool { return id == d.ID })
	if len(d.Addrs) > maxAddrs || len(d.Keys) > maxKeys || len(d.Family) > MaxFamily || len(d.Contact) > maxContact || len(d.Program) > maxProgram {
		return fmt.Errorf("directory: descriptor with %d addresses, %d keys, %d relays of a family, %d bytes of contact, %d of version: at most %d, %d, %d, %d, %d",
			len(d.Addrs), len(d.Keys), len(d.Family), len(d.Contact), len(d.Program), maxAddrs, maxKeys, MaxFamily, maxContact, maxProgram)
	}
	b := d.Append(nil)
	copy(d.Sig[:], ed25519.Sign(key, d.signed(b)))
	_, err := ParseDescriptor(d.Append(b[:0]))
	return err
}

// Verify reports whether d was signed by its own ID.
func (d *Descriptor) Verify() error {
	return d.verify(d.Append(nil))
}

// verify is Verify of a descriptor whose wire form is at hand.
func (d *Descriptor) verify(wire []byte) error {
	if !ed25519.Verify(d.ID[:], d.signed(wire), d.Sig[:]) {
		return fmt.Errorf("directory: descriptor of %s not signed by its own key", d.ID.Short())
	}
	return nil
}

// CheckTime reports whether d is of now: what a tracker asks before it lists it.
func (d *Descriptor) CheckTime(now time.Time) error {
	switch age := now.Sub(time.Unix(d.Published, 0)); {
	case age > DescriptorFor:
		return fmt.Errorf("directory: descriptor of %s is %v old, at most %v", d.ID.Short(), age.Round(time.Second), DescriptorFor)
	case age < -MaxClockError:
		return fmt.Errorf("directory: descriptor of %s is %v in the future", d.ID.Short(), -age.Round(time.Second))
	}
	return nil
}

func (d *Descriptor) signed(wire []byte) []byte {
	return slices.Concat([]byte(labelDescriptor), wire[:len(wire)-ed25519.SignatureSize])
}

// Append appends d's wire form, at most MaxDescriptor bytes, to b.
func (d *Descriptor) Append(b []byte) []byte {
	b = append(b, 1)
	b = append(b, d.ID[:]...)
	b = appendTime(b, d.Published)
	b = binary.BigEndian.AppendUint64(b, d.Rate)
	b = append(b, byte(d.Suite), byte(len(d.Addrs)))
	for _, a := range d.Addrs {
		b = appendAddr(b, a)
	}
	b = append(b, byte(len(d.Keys)))
	for i := range d.Keys {
		b = append(b, d.Keys[i].Number())
		b = append(b, d.Keys[i].Bytes()...)
	}
	b = append(b, byte(len(d.Family)))
	for _, id := range d.Family {
		b = append(b, id[:]...)
	}
	b = append(b, byte(len(d.Contact)))
	b = append(b, d.Contact...)
	b = append(b, byte(len(d.Program)))
	b = append(b, d.Program...)
	return append(b, d.Sig[:]...)
}

// ParseDescriptor reads what Append wrote and keeps no reference to b. Whose
// word it is, Verify tells.
func ParseDescriptor(b []byte) (*Descriptor, error) {
	if len(b) > MaxDescriptor {
		return nil, fmt.Errorf("directory: descriptor of %d bytes, at most %d", len(b), MaxDescriptor)
	}
	r := reader{b: b}
	if v := r.byte(); r.err == nil && v != 1 {
		return nil, fmt.Errorf("directory: descriptor of version %d, this is 1", v)
	}
	d := &Descriptor{ID: r.key(), Published: r.time(), Rate: r.uint64(), Suite: onion.Suite(r.byte())}
	if r.err == nil && !d.Suite.Valid() {
		return nil, fmt.Errorf("directory: unknown suite %d", d.Suite)
	}
	for range r.count("addresses", 1, maxAddrs) {
		d.Addrs = append(d.Addrs, r.addr())
	}
	for range r.count("onion keys", 1, maxKeys) {
		d.Keys = append(d.Keys, r.onionKey())
	}
	if len(d.Keys) == 2 && d.Keys[0].Number() == d.Keys[1].Number() {
		r.fail("directory: two onion keys have the number %d", d.Keys[0].Number())
	}
	for range r.count("relays of a family", 0, MaxFamily) {
		d.Family = append(d.Family, r.key())
	}
	for i, id := range d.Family {
		if id == d.ID || i > 0 && bytes.Compare(d.Family[i-1][:], id[:]) >= 0 {
			r.fail("directory: relays of a family out of order")
		}
	}
	d.Contact = string(r.next(r.count("bytes of contact", 0, maxContact)))
	d.Program = string(r.next(r.count("bytes of version", 0, maxProgram)))
	if err := checkText(d.Contact, d.Program); err != nil {
		r.fail("%w", err)
	}
	copy(d.Sig[:], r.next(ed25519.SignatureSize))
	if r.end(); r.err != nil {
		return nil, r.err
	}
	return d, nil
}

// CheckContact returns why a descriptor can't hold s as its contact. It keeps
// what a terminal or a page would obey out of what operators of others write.
func CheckContact(s string) error {
	if len(s) > maxContact {
		return fmt.Errorf("contact of %d bytes, at most %d", len(s), maxContact)
	}
	if !utf8.ValidString(s) {
		return errors.New("contact is not UTF-8")
	}
	for _, c := range s {
		if !unicode.IsPrint(c) {
			return fmt.Errorf("contact holds the unprintable %U", c)
		}
	}
	return nil
}

// checkText is CheckContact of both texts.
func checkText(contact, program string) error {
	if err := CheckContact(contact); err != nil {
		return fmt.Errorf("directory: %w", err)
	}
	for _, c := range []byte(program) {
		if c < ' ' || c > '~' {
			return fmt.Errorf("directory: version holds the unprintable %#x", c)
		}
	}
	return nil
}

func appendAddr(b []byte, a netip.AddrPort) []byte {
	return binary.BigEndian.AppendUint16(appendIP(b, a.Addr()), a.Port())
}

// appendIP appends an address behind its family, 4 or 6.
func appendIP(b []byte, a netip.Addr) []byte {
	ip := a.AsSlice()
	family := byte(4)
	if len(ip) == 16 {
		family = 6
	}
	return append(append(b, family), ip...)
}

// ip reads what appendIP wrote; the zero Addr when there is an error.
func (r *reader) ip() netip.Addr {
	size := 4
	switch family := r.byte(); family {
	case 4:
	case 6:
		size = 16
	default:
		r.fail("directory: unknown address family %d", family)
	}
	ip, _ := netip.AddrFromSlice(r.next(size))
	return ip
}

func (r *reader) addr() netip.AddrPort {
	ip := r.ip()
	port := r.uint16()
	if !ip.IsValid() || ip.Is4In6() || ip.IsUnspecified() || ip.IsMulticast() || port == 0 {
		r.fail("directory: address that can't be dialled")
	}
	return netip.AddrPortFrom(ip, uint16(port))
}

func (r *reader) onionKey() onion.PublicKey {
	number := r.byte()
	raw := r.next(onion.PublicKeySize)
	if r.err != nil {
		return onion.PublicKey{}
	}
	k, err := onion.ParsePublicKey(raw, number)
	if err != nil {
		r.fail("directory: %w", err)
	}
	return k
}
