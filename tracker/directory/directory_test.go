package directory

import (
	"bytes"
	"cmp"
	"crypto/ed25519"
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/shoal-p2p/shoal/circuit/onion"
)

var testNow = time.Date(2026, 5, 13, 12, 0, 0, 0, time.UTC)

// key is the Ed25519 key called n.
func key(n int) ed25519.PrivateKey {
	var seed [32]byte
	binary.BigEndian.PutUint32(seed[:], uint32(n))
	return ed25519.NewKeyFromSeed(seed[:])
}

func idOfKey(n int) onion.ID { return onion.ID(key(n).Public().(ed25519.PublicKey)) }

func onionKey(t testing.TB, n int, number byte) onion.PublicKey {
	t.Helper()
	seed := bytes.Repeat([]byte{byte(n)}, onion.PrivateKeySize)
	k, err := onion.ParsePrivateKey(seed, number)
	if err != nil {
		t.Fatal(err)
	}
	return k.Public()
}

// relay is the descriptor of relay n, at 8.n/256.n%256.1:9001.
func relay(t testing.TB, n int, change ...func(d *Descriptor)) *Descriptor {
	t.Helper()
	d := &Descriptor{
		Published: testNow.Add(-time.Hour).Unix(),
		Addrs:     []netip.AddrPort{netip.AddrPortFrom(netip.AddrFrom4([4]byte{8, byte(n >> 8), byte(n), 1}), 9001)},
		Keys:      []onion.PublicKey{onionKey(t, 1, 1)},
		Rate:      10 << 20,
		Program:   "0.1.0",
	}
	for _, c := range change {
		c(d)
	}
	if err := d.Sign(key(n)); err != nil {
		t.Fatal(err)
	}
	return d
}

// full is a descriptor with everything in it that may be.
func full(t testing.TB) *Descriptor {
	return relay(t, 500, func(d *Descriptor) {
		d.Addrs = append(d.Addrs, netip.MustParseAddrPort("[2a00:1::2]:443"))
		d.Keys = append(d.Keys, onionKey(t, 2, 2))
		d.Suite = onion.ChaCha20
		d.Family = []onion.ID{{1}, {2}, {3}}
		d.Contact = "Jörg <relays@example.org>"
	})
}

// said is one line of a test's view: relay n has this weight, known since so many hours.
type said struct {
	d      *Descriptor
	weight uint64
	hours  int
}

const trackerBase = 10_000 // tracker n has the key trackerBase+n, and signs with the one 100 above

func trackerKey(n int) [32]byte { return idOfKey(trackerBase + n) }

func testNetwork(trackers int) Network {
	n := Network{ViewEvery: ViewEvery}
	for i := range trackers {
		n.Trackers = append(n.Trackers, Tracker{trackerKey(i), netip.AddrPortFrom(netip.AddrFrom4([4]byte{9, 0, 0, byte(i)}), 9000)})
	}
	return n
}

// view is signed by tracker n, and after prev when there is one.
func view(t testing.TB, n int, at time.Time, prev *View, lines ...said) *View {
	t.Helper()
	self := relay(t, trackerBase+n)
	v := &View{
		Certificate: Certify(key(trackerBase+n), idOfKey(trackerBase+100+n), at),
		Number:      NextNumber(prev, at),
		Time:        at.Unix(),
		ValidUntil:  at.Add(ValidFor).Unix(),
		UsableUntil: at.Add(UsableFor).Unix(),
		Self:        self,
	}
	if prev != nil {
		v.Previous = prev.Hash()
	}
	for _, l := range lines {
		v.Entries = append(v.Entries, Entry{Weight: l.weight, FirstSeen: at.Add(-time.Duration(l.hours) * time.Hour).Unix(), Reachable: l.weight > 0, Descriptor: l.d})
	}
	slices.SortFunc(v.Entries, func(a, b Entry) int { return cmp.Compare(string(a.Descriptor.ID[:]), string(b.Descriptor.ID[:])) })
	if err := v.Sign(key(trackerBase + 100 + n)); err != nil {
		t.Fatal(err)
	}
	return v
}

// parsed is v as someone receives it.
func parsed(t testing.TB, v *View) *View {
	t.Helper()
	got, err := ParseView(v.Raw())
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestDescriptorRoundTripsAndEveryPrefixIsRefused(t *testing.T) {
	for _, d := range []*Descriptor{relay(t, 1), full(t)} {
		wire := d.Append(nil)
		got, err := ParseDescriptor(wire)
		if err != nil {
			t.Fatal(err)
		}
		if err := got.Verify(); err != nil {
			t.Error(err)
		}
		if !bytes.Equal(got.Append(nil), wire) {
			t.Error("round trip differs")
		}
		for i := range len(wire) {
			if _, err := ParseDescriptor(wire[:i]); err == nil {
				t.Errorf("accepted %d of %d bytes", i, len(wire))
			}
		}
		if _, err := ParseDescriptor(append(wire, 0)); err == nil {
			t.Error("accepted a byte too many")
		}
	}
}

func TestEveryFlippedBitOfADescriptorIsRefused(t *testing.T) {
	wire := full(t).Append(nil)
	for i := 0; i < len(wire); i += 1 + i/300 { // the keys' middle is the same all over
		wire[i] ^= 1 << (i % 8)
		if d, err := ParseDescriptor(wire); err == nil && d.Verify() == nil {
			t.Errorf("accepted with bit %d of byte %d flipped", i%8, i)
		}
		wire[i] ^= 1 << (i % 8)
	}
}

func TestDescriptorBeyondItsBoundsIsRefused(t *testing.T) {
	addr := func(s string) func(*Descriptor) {
		return func(d *Descriptor) { d.Addrs = []netip.AddrPort{netip.MustParseAddrPort(s)} }
	}
	for name, change := range map[string]func(d *Descriptor){
		"no address":           func(d *Descriptor) { d.Addrs = nil },
		"five addresses":       func(d *Descriptor) { d.Addrs = slices.Repeat(d.Addrs, 5) },
		"port zero":            addr("8.8.8.8:0"),
		"unspecified address":  addr("0.0.0.0:9001"),
		"multicast address":    addr("224.0.0.1:9001"),
		"mapped address":       addr("[::ffff:8.8.8.8]:9001"),
		"no onion key":         func(d *Descriptor) { d.Keys = nil },
		"three onion keys":     func(d *Descriptor) { d.Keys = slices.Repeat(d.Keys, 3) },
		"two keys of a number": func(d *Descriptor) { d.Keys = slices.Repeat(d.Keys, 2) },
		"unknown suite":        func(d *Descriptor) { d.Suite = 9 },
		"seventeen relatives": func(d *Descriptor) {
			for i := range byte(17) {
				d.Family = append(d.Family, onion.ID{i})
			}
		},
		"long contact":          func(d *Descriptor) { d.Contact = string(make([]byte, 129)) },
		"contact with escape":   func(d *Descriptor) { d.Contact = "\x1b[31m" },
		"contact turned around": func(d *Descriptor) { d.Contact = "\u202egro" },
		"contact not UTF-8":     func(d *Descriptor) { d.Contact = "\xff" },
		"version not ASCII":     func(d *Descriptor) { d.Program = "ü" },
	} {
		d := *relay(t, 7)
		change(&d)
		if err := d.Sign(key(7)); err == nil {
			t.Errorf("%s: signed", name)
		}
	}
}

func TestFamilyIsPutInOrderAndReadInOrderOnly(t *testing.T) {
	own, a, b := idOfKey(7), onion.ID{1}, onion.ID{2}
	d := relay(t, 7, func(d *Descriptor) { d.Family = []onion.ID{b, own, a, b} })
	if !slices.Equal(d.Family, []onion.ID{a, b}) {
		t.Errorf("family of %d, want 2 in order", len(d.Family))
	}
	for _, family := range [][]onion.ID{{b, a}, {a, a}, {own}} {
		d.Family = family
		if _, err := ParseDescriptor(d.Append(nil)); err == nil {
			t.Errorf("read a family of %d out of order", len(family))
		}
	}
}

func TestLongestDescriptorFitsOneMessage(t *testing.T) {
	const message = 4096 - 8 - 1
	if MaxDescriptor > message {
		t.Errorf("a descriptor takes %d bytes, a request has %d", MaxDescriptor, message)
	}
}

func TestViewRoundTripsAndEveryPrefixIsRefused(t *testing.T) {
	v := view(t, 0, testNow, nil, said{relay(t, 1), 100, 5}, said{full(t), 200, 6})
	got := parsed(t, v)
	if err := got.Verify(trackerKey(0), testNow, nil); err != nil {
		t.Fatal(err)
	}
	if got.Number != v.Number || got.Hash() != v.Hash() || got.Self.ID != onion.ID(trackerKey(0)) || len(got.Entries) != 2 {
		t.Error("round trip differs")
	}
	for i, e := range got.Entries {
		if w := v.Entries[i]; e.Weight != w.Weight || e.FirstSeen != w.FirstSeen || e.Reachable != w.Reachable || e.Descriptor.ID != w.Descriptor.ID {
			t.Errorf("entry %d differs", i)
		}
	}
	wire := v.Raw()
	for i := range len(wire) {
		if _, err := ParseView(wire[:i]); err == nil {
			t.Errorf("accepted %d of %d bytes", i, len(wire))
		}
	}
	if _, err := ParseView(append(bytes.Clone(wire), 0)); err == nil {
		t.Error("accepted a byte too many")
	}
}

func TestEveryFlippedByteOfAViewIsRefused(t *testing.T) {
	wire := bytes.Clone(view(t, 0, testNow, nil, said{relay(t, 1), 100, 5}).Raw())
	for i := 0; i < len(wire); i += 1 + i/300 {
		wire[i] ^= 1 << (i % 8)
		if v, err := ParseView(wire); err == nil && v.Verify(trackerKey(0), testNow, nil) == nil {
			t.Errorf("accepted with bit %d of byte %d flipped", i%8, i)
		}
		wire[i] ^= 1 << (i % 8)
	}
}

func TestViewIsRefusedWhenItIsNotWhatItsTrackerMaySay(t *testing.T) {
	resign := func(n int, change func(v *View)) *View {
		v := view(t, n, testNow, nil, said{relay(t, 1), 100, 5})
		change(v)
		if err := v.Sign(key(trackerBase + 100 + n)); err != nil {
			t.Fatal(err)
		}
		return parsed(t, v)
	}
	for name, change := range map[string]func(v *View){
		"nothing":             func(v *View) {},
		"valid too long":      func(v *View) { v.ValidUntil += 1 },
		"usable too long":     func(v *View) { v.UsableUntil += 1 },
		"never valid":         func(v *View) { v.ValidUntil = v.Time },
		"usable before valid": func(v *View) { v.UsableUntil = v.ValidUntil - 1 },
		"another's address":   func(v *View) { v.Self = relay(t, 3) },
		"forged descriptor": func(v *View) {
			d := *v.Entries[0].Descriptor
			d.Keys = []onion.PublicKey{onionKey(t, 9, 1)}
			v.Entries[0].Descriptor = &d
		},
		"key certified by another": func(v *View) { v.Certificate = Certify(key(trackerBase+1), v.Certificate.Key, testNow) },
		"key certified long ago": func(v *View) {
			v.Certificate = Certify(key(trackerBase), v.Certificate.Key, testNow.Add(-CertifiedFor))
		},
		"key certified for longer": func(v *View) {
			v.Certificate.Until++
			copy(v.Certificate.Sig[:], ed25519.Sign(key(trackerBase), v.Certificate.signed()))
		},
	} {
		err := resign(0, change).Verify(trackerKey(0), testNow, nil)
		if (err == nil) != (name == "nothing") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestViewWithRelaysOutOfOrderOrTwiceIsNotSigned(t *testing.T) {
	v := view(t, 0, testNow, nil, said{relay(t, 1), 100, 5}, said{relay(t, 2), 100, 5})
	slices.Reverse(v.Entries)
	if v.Sign(key(trackerBase+100)) == nil {
		t.Error("signed out of order")
	}
	v.Entries[0] = v.Entries[1]
	if v.Sign(key(trackerBase+100)) == nil {
		t.Error("signed a relay twice")
	}
	if v.Sign(key(trackerBase+101)) == nil {
		t.Error("signed with a key that is not certified")
	}
}

func TestViewMayNameTheCertifiedKeyAsTheTrackersIdentity(t *testing.T) {
	v := view(t, 0, testNow, nil)
	v.Self = relay(t, trackerBase+100)
	if err := v.Sign(key(trackerBase + 100)); err != nil {
		t.Fatal(err)
	}
	if err := parsed(t, v).Verify(trackerKey(0), testNow, nil); err != nil {
		t.Error(err)
	}
}

func TestCertificateRoundTrips(t *testing.T) {
	c := Certify(key(1), idOfKey(2), testNow)
	wire := c.Append(nil)
	if got, err := ParseCertificate(wire); err != nil || got != c {
		t.Errorf("round trip differs: %v", err)
	}
	for i := range len(wire) {
		if _, err := ParseCertificate(wire[:i]); err == nil {
			t.Errorf("accepted %d of %d bytes", i, len(wire))
		}
	}
}

func TestRequestForViewsRoundTripsAndEveryPrefixIsRefused(t *testing.T) {
	have := []Have{{trackerKey(0), 7}, {trackerKey(1), 0}}
	wire := AppendHave(nil, have)
	if got, err := ParseHave(wire); err != nil || !slices.Equal(got, have) {
		t.Errorf("round trip differs: %v", err)
	}
	for i := range len(wire) {
		if _, err := ParseHave(wire[:i]); err == nil {
			t.Errorf("accepted %d of %d bytes", i, len(wire))
		}
	}
	answer := AppendView(AppendView(nil, []byte("one")), []byte("three"))
	if got, err := ParseViews(answer); err != nil || len(got) != 2 || string(got[1]) != "three" {
		t.Errorf("ParseViews = %q, %v", got, err)
	}
	for i := range len(answer) {
		if got, err := ParseViews(answer[:i]); err == nil && len(got) != 0 && i != 7 {
			t.Errorf("accepted %d of %d bytes", i, len(answer))
		}
	}
	if _, err := ParseViews([]byte{0xff, 0xff, 0xff, 0xff}); err == nil {
		t.Error("accepted a view of 4 GiB")
	}
}

func TestAnswerToADescriptorRoundTripsAndEveryPrefixIsRefused(t *testing.T) {
	for _, p := range []Published{{Standing: Reachable}, {Untested, netip.MustParseAddr("8.8.8.8")}, {WrongAddress, netip.MustParseAddr("2a00:1::2")}} {
		wire := p.Append(nil)
		if got, err := ParsePublished(wire); err != nil || got != p || len(wire) > MaxPublished {
			t.Errorf("ParsePublished(%x) = %v, %v, want %v", wire, got, err, p)
		}
		for i := range len(wire) {
			if _, err := ParsePublished(wire[:i]); err == nil {
				t.Errorf("accepted %d of %d bytes", i, len(wire))
			}
		}
		if _, err := ParsePublished(append(wire, 0)); err == nil {
			t.Error("accepted a byte too many")
		}
	}
	for b := range 256 {
		if _, err := ParsePublished([]byte{byte(b), 0}); (err == nil) != (b >= 1 && b <= 8) {
			t.Errorf("standing %d: %v", b, err)
		}
	}
	for _, a := range []string{"0.0.0.0", "224.0.0.1", "::ffff:8.8.8.8", "::"} {
		if _, err := ParsePublished(Published{Untested, netip.MustParseAddr(a)}.Append(nil)); err == nil {
			t.Errorf("seen at %s: accepted", a)
		}
	}
}

func FuzzParseDescriptor(f *testing.F) {
	f.Add(relay(f, 1).Append(nil))
	f.Add(full(f).Append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		if d, err := ParseDescriptor(b); err == nil && !bytes.Equal(d.Append(nil), b) {
			t.Error("ParseDescriptor accepts what Append would not write")
		}
	})
}

func FuzzParseView(f *testing.F) {
	f.Add(view(f, 0, testNow, nil).Raw())
	f.Add(view(f, 0, testNow, nil, said{relay(f, 1), 100, 5}).Raw())
	f.Fuzz(func(t *testing.T, b []byte) {
		v, err := ParseView(b)
		if err == nil {
			v.readEntries(NewCache())
			v.Verify(trackerKey(0), testNow, nil)
		}
	})
}

func FuzzParseHave(f *testing.F) {
	f.Add(AppendHave(nil, []Have{{trackerKey(0), 7}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		if have, err := ParseHave(b); err == nil && !bytes.Equal(AppendHave(nil, have), b) {
			t.Error("ParseHave accepts what AppendHave would not write")
		}
	})
}

func FuzzParseViews(f *testing.F) {
	f.Add(AppendView(nil, []byte("a view")))
	f.Fuzz(func(t *testing.T, b []byte) {
		views, err := ParseViews(b)
		var again []byte
		for _, v := range views {
			again = AppendView(again, v)
		}
		if err == nil && !bytes.Equal(again, b) {
			t.Error("ParseViews accepts what AppendView would not write")
		}
	})
}

func FuzzParsePublished(f *testing.F) {
	f.Add(Published{Standing: Reachable}.Append(nil))
	f.Add(Published{Untested, netip.MustParseAddr("2a00:1::2")}.Append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		if p, err := ParsePublished(b); err == nil && !bytes.Equal(p.Append(nil), b) {
			t.Error("ParsePublished accepts what Append would not write")
		}
	})
}
