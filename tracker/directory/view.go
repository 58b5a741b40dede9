package directory

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/shoal-p2p/shoal/circuit/fault"
	"github.com/shoal-p2p/shoal/circuit/onion"
)

const (
	certificateSize = 32 + 32 + 8 + 8 + ed25519.SignatureSize
	viewHeaderSize  = 1 + certificateSize + 8 + 32 + 8 + 8 + 8
	entryHeaderSize = 8 + 8 + 1 + 2
	minView         = viewHeaderSize + 2 + 4 + ed25519.SignatureSize

	flagReachable = 1
)

// Certificate is a tracker's word that a key signs its views for a while.
type Certificate struct {
	Tracker     [32]byte
	Key         [32]byte
	From, Until int64 // seconds since 1970, at most CertifiedFor apart
	Sig         [ed25519.SignatureSize]byte
}

// Certify certifies key for CertifiedFor from now on. The hour before now is
// for clocks that are behind.
func Certify(tracker ed25519.PrivateKey, key [32]byte, now time.Time) Certificate {
	from := now.Add(-time.Hour)
	c := Certificate{Key: key, From: from.Unix(), Until: from.Add(CertifiedFor).Unix()}
	copy(c.Tracker[:], tracker.Public().(ed25519.PublicKey))
	copy(c.Sig[:], ed25519.Sign(tracker, c.signed()))
	return c
}

// Verify reports whether tracker signed c and c counts at t.
func (c *Certificate) Verify(tracker [32]byte, t time.Time) error {
	s := t.Unix()
	switch {
	case c.Tracker != tracker:
		return errors.New("directory: signing key certified by another tracker")
	case c.Until < c.From || c.Until-c.From > int64(CertifiedFor/time.Second):
		return fmt.Errorf("directory: signing key certified for %d s, at most %v", c.Until-c.From, CertifiedFor)
	case s < c.From || s >= c.Until:
		return fmt.Errorf("directory: signing key not certified at %s", t.UTC().Format(time.RFC3339))
	case !ed25519.Verify(tracker[:], c.signed(), c.Sig[:]):
		return errors.New("directory: signing key not certified by the tracker's pinned key")
	}
	return nil
}

func (c *Certificate) signed() []byte {
	b := c.Append([]byte(labelViewKey))
	return b[:len(b)-ed25519.SignatureSize]
}

// Append appends c's wire form to b.
func (c *Certificate) Append(b []byte) []byte {
	b = append(b, c.Tracker[:]...)
	b = append(b, c.Key[:]...)
	b = appendTime(b, c.From)
	b = appendTime(b, c.Until)
	return append(b, c.Sig[:]...)
}

// ParseCertificate reads what Append wrote and keeps no reference to b.
func ParseCertificate(b []byte) (Certificate, error) {
	r := reader{b: b}
	c := r.certificate()
	r.end()
	return c, r.err
}

func (r *reader) certificate() (c Certificate) {
	c.Tracker, c.Key, c.From, c.Until = r.key(), r.key(), r.time(), r.time()
	copy(c.Sig[:], r.next(ed25519.SignatureSize))
	return c
}

// Entry is what a tracker says of one relay.
type Entry struct {
	Weight     uint64 // bytes per second; 0 means known, not to be chosen
	FirstSeen  int64  // seconds since 1970
	Reachable  bool   // a circuit through it stood lately
	Descriptor *Descriptor

	wire []byte // the descriptor as it came, until Verify has read it
}

// View is what a tracker says of all relays at one time.
type View struct {
	Certificate Certificate
	Number      uint64
	Previous    [32]byte // Hash of the view before
	Time        int64    // seconds since 1970, like those below
	ValidUntil  int64
	UsableUntil int64
	Self        *Descriptor // how to reach the tracker
	Entries     []Entry     // by ID, ascending

	self []byte // like Entry.wire
	raw  []byte // the whole wire form, once parsed or signed; not to be changed
	hash [32]byte
}

// NextNumber returns the number of the view that follows prev, nil when there
// is none: the time. A tracker that lost its state thus goes on above what it
// ever signed, unless it signs more than one view a second.
func NextNumber(prev *View, now time.Time) uint64 {
	if prev == nil {
		return uint64(max(now.Unix(), 1))
	}
	return prev.Number + 1
}

// Tracker returns the key that names the tracker.
func (v *View) Tracker() [32]byte { return v.Certificate.Tracker }

// Hash returns what the next view calls this one.
func (v *View) Hash() [32]byte { return v.hash }

// Raw returns v's wire form, which nobody may change. It is nil before Sign.
func (v *View) Raw() []byte { return v.raw }

// Sign signs v with the key that its certificate names, and takes its wire form.
// Entries must be in order and their descriptors signed.
func (v *View) Sign(key ed25519.PrivateKey) error {
	if [32]byte(key.Public().(ed25519.PublicKey)) != v.Certificate.Key {
		return errors.New("directory: view signed with another key than the certified one")
	}
	if v.Self == nil || len(v.Entries) > MaxRelays {
		return fmt.Errorf("directory: view of %d relays, at most %d, or without the tracker's own descriptor", len(v.Entries), MaxRelays)
	}
	b := v.appendBody(nil)
	hash := sha256.Sum256(b)
	b = append(b, ed25519.Sign(key, append([]byte(labelView), hash[:]...))...)
	if _, err := ParseView(b); err != nil {
		return err
	}
	v.raw, v.hash = b, hash
	return nil
}

func (v *View) appendBody(b []byte) []byte {
	b = append(b, 1)
	b = v.Certificate.Append(b)
	b = binary.BigEndian.AppendUint64(b, v.Number)
	b = append(b, v.Previous[:]...)
	b = appendTime(b, v.Time)
	b = appendTime(b, v.ValidUntil)
	b = appendTime(b, v.UsableUntil)
	b = appendDescriptor(b, v.Self)
	b = binary.BigEndian.AppendUint32(b, uint32(len(v.Entries)))
	for _, e := range v.Entries {
		b = binary.BigEndian.AppendUint64(b, e.Weight)
		b = appendTime(b, e.FirstSeen)
		flags := byte(0)
		if e.Reachable {
			flags = flagReachable
		}
		b = appendDescriptor(append(b, flags), e.Descriptor)
	}
	return b
}

// appendDescriptor appends d with its length in front.
func appendDescriptor(b []byte, d *Descriptor) []byte {
	at := len(b)
	b = d.Append(append(b, 0, 0))
	binary.BigEndian.PutUint16(b[at:], uint16(len(b)-at-2))
	return b
}

// ParseView reads the frame of a view; it keeps b. The descriptors in it are
// read by Verify, once it is known who signed them into it.
func ParseView(b []byte) (*View, error) {
	if len(b) < minView || len(b) > MaxView {
		return nil, fmt.Errorf("directory: view of %d bytes, want %d to %d", len(b), minView, MaxView)
	}
	r := reader{b: b[:len(b)-ed25519.SignatureSize]}
	if v := r.byte(); v != 1 {
		return nil, fmt.Errorf("directory: view of version %d, this is 1", v)
	}
	v := &View{Certificate: r.certificate(), Number: r.uint64(), Previous: r.key(), Time: r.time(), ValidUntil: r.time(), UsableUntil: r.time(), raw: b}
	v.self = r.next(r.uint16())
	n := r.uint32()
	if r.err == nil && (n > MaxRelays || int(n)*entryHeaderSize > len(r.b)) {
		return nil, fmt.Errorf("directory: view of %d relays in %d bytes, at most %d", n, len(r.b), MaxRelays)
	}
	if r.err != nil {
		return nil, r.err
	}
	v.Entries = make([]Entry, n)
	for i := range v.Entries {
		e := &v.Entries[i]
		e.Weight, e.FirstSeen = r.uint64(), r.time()
		flags := r.byte()
		if flags&^flagReachable != 0 {
			r.fail("directory: unknown flags %#x", flags)
		}
		e.Reachable = flags&flagReachable != 0
		e.wire = r.next(r.uint16())
		if i > 0 && bytes.Compare(idOf(v.Entries[i-1].wire), idOf(e.wire)) >= 0 {
			r.fail("directory: relays of a view out of order")
		}
		if r.err != nil {
			return nil, r.err
		}
	}
	if r.end(); r.err != nil {
		return nil, r.err
	}
	v.hash = sha256.Sum256(b[:len(b)-ed25519.SignatureSize])
	return v, nil
}

// idOf returns the ID in a descriptor's wire form, or what there is of it.
func idOf(wire []byte) []byte { return wire[min(1, len(wire)):min(33, len(wire))] }

// Verify checks who signed v and for when, then reads and checks the
// descriptors in it, through c if it is not nil: views differ little from hour
// to hour and from tracker to tracker, and only what is new costs anything.
// Before it returned nil, v is just bytes.
func (v *View) Verify(tracker [32]byte, now time.Time, c *Cache) error {
	if err := v.verifyHead(tracker, now); err != nil {
		return err
	}
	if c == nil {
		c = NewCache()
	}
	self, err := c.descriptor(v.self)
	if err != nil {
		return err
	}
	if self.ID != onion.ID(tracker) && self.ID != onion.ID(v.Certificate.Key) {
		return errors.New("directory: the tracker's own descriptor is another's")
	}
	if err := v.readEntries(c); err != nil {
		return err
	}
	v.Self, v.self = self, nil
	return nil
}

func (v *View) verifyHead(tracker [32]byte, now time.Time) error {
	t := time.Unix(v.Time, 0)
	if err := v.Certificate.Verify(tracker, t); err != nil {
		return err
	}
	sig := v.raw[len(v.raw)-ed25519.SignatureSize:]
	if !ed25519.Verify(v.Certificate.Key[:], append([]byte(labelView), v.hash[:]...), sig) {
		return errors.New("directory: view not signed by its signing key")
	}
	switch {
	case v.ValidUntil <= v.Time || v.ValidUntil-v.Time > int64(ValidFor/time.Second),
		v.UsableUntil < v.ValidUntil || v.UsableUntil-v.Time > int64(UsableFor/time.Second):
		return fmt.Errorf("directory: view is to be valid for %d s and usable for %d s, at most %v and %v",
			v.ValidUntil-v.Time, v.UsableUntil-v.Time, ValidFor, UsableFor)
	case v.UsableUntil <= now.Unix():
		return fault.New(fault.NoViews, "the newest list of relays that {who} has ended "+fault.Span(now.Sub(time.Unix(v.UsableUntil, 0)))+" ago",
			"Either this computer's clock is ahead, or the tracker that signed it has been down for long.", ErrStale)
	case t.After(now.Add(MaxClockError)):
		return fault.ClockOff(now.Sub(t), errFuture)
	}
	return nil
}

// readEntries reads v's descriptors on all cores.
func (v *View) readEntries(c *Cache) error {
	var (
		wg    sync.WaitGroup
		next  atomic.Int64
		first atomic.Pointer[error]
	)
	const batch = 64
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for first.Load() == nil {
				at := int(next.Add(batch)) - batch
				if at >= len(v.Entries) {
					return
				}
				for i := at; i < min(at+batch, len(v.Entries)); i++ {
					e := &v.Entries[i]
					d, err := c.descriptor(e.wire)
					if err != nil {
						first.CompareAndSwap(nil, &err)
						return
					}
					e.Descriptor = d
				}
			}
		})
	}
	wg.Wait()
	if err := first.Load(); err != nil {
		return *err
	}
	for i := range v.Entries {
		v.Entries[i].wire = nil
	}
	return nil
}

// Cache remembers descriptors that were read and verified, by the hash of their
// wire form. Descriptors that come out of it are shared: nobody may change them.
type Cache struct {
	mu   sync.Mutex
	seen map[[32]byte]*Descriptor // guarded by mu
}

// NewCache returns an empty cache.
func NewCache() *Cache { return &Cache{seen: make(map[[32]byte]*Descriptor)} }

func (c *Cache) descriptor(wire []byte) (*Descriptor, error) {
	h := sha256.Sum256(wire)
	c.mu.Lock()
	d := c.seen[h]
	c.mu.Unlock()
	if d != nil {
		return d, nil
	}
	d, err := ParseDescriptor(wire)
	if err != nil {
		return nil, err
	}
	if err := d.verify(wire); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if other := c.seen[h]; other != nil {
		return other, nil
	}
	c.seen[h] = d
	return d, nil
}

// Keep forgets all descriptors that none of these views holds.
func (c *Cache) Keep(views []*View) {
	held := make(map[*Descriptor]bool)
	for _, v := range views {
		held[v.Self] = true
		for _, e := range v.Entries {
			held[e.Descriptor] = true
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for h, d := range c.seen {
		if !held[d] {
			delete(c.seen, h)
		}
	}
}
