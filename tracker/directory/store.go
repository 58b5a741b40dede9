package directory

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"path/filepath"

	"github.com/shoal-p2p/shoal/circuit/state"
)

// What is known of a tracker lies in two files, so that no single damage makes
// the reader forget which views it has seen. The body of the first, chain-KEY:
//
//	0  1  1 when the tracker is believed no more
//	1  8  the number it used twice, or zero
//	9  1  views seen, at most 48; for each: number 8, hash 32
//
// and of the second, view-KEY, the same, followed by
//
//	…  4  length of the newest view, or zero; the view
const chainSize = 1 + 8 + 1 + chainLength*(8+32)

var (
	chainFile = &state.Kind{
		Name: "chain", Version: 1, Limit: chainSize, Policy: state.Cache, What: "the memory of a tracker's views",
		Lost: "the copy beside the saved view is used; without both, a tracker that shows an older view, or two different ones, is not recognised once",
	}
	viewFile = &state.Kind{
		Name: "view", Version: 1, Limit: chainSize + 4 + MaxView, Policy: state.Cache, What: "the saved view of a tracker",
		Lost: "it is fetched again",
	}
)

func (k *Keeper) file(kind *state.Kind, tracker [32]byte) string {
	return filepath.Join(k.dir, kind.Name+"-"+hex.EncodeToString(tracker[:8]))
}

// load reads what was saved of a tracker: nothing, if it never was.
func (k *Keeper) load(tracker [32]byte) (*kept, error) {
	t, seen := &kept{}, &kept{}
	_, err := viewFile.Load(k.file(viewFile, tracker), func(b []byte) error {
		read, raw, err := parseKept(b, tracker)
		if err == nil && len(raw) > 0 {
			read.view, err = k.reload(raw, tracker)
		}
		if err == nil {
			t = read
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	_, err = chainFile.Load(k.file(chainFile, tracker), func(b []byte) error {
		r := reader{b: b}
		read := r.kept(tracker)
		r.end()
		if r.err == nil {
			seen = read
		}
		return r.err
	})
	if err != nil {
		return nil, err
	}
	t.remember(seen)
	return t, nil
}

// remember takes in what another copy says of the same tracker. The copy that
// has seen more is right; a view that it does not go on from is dropped.
func (t *kept) remember(seen *kept) {
	if t.fault == nil {
		t.fault = seen.fault
	}
	if seen.chain.Newest() > t.chain.Newest() {
		t.chain = seen.chain
	}
	if t.view != nil && (t.fault != nil || t.chain.Check(t.view) != nil) {
		t.view = nil
	}
}

// reload verifies a saved view anew; one whose time is over, or of when the
// network was of another kind, is no view.
func (k *Keeper) reload(raw []byte, tracker [32]byte) (*View, error) {
	v, err := ParseView(raw)
	if err == nil {
		err = v.Verify(tracker, k.now(), k.cache)
	}
	if err == nil {
		err = v.Self.CheckAddrs(&k.network)
	}
	if errors.Is(err, ErrStale) || errors.Is(err, errFuture) || errors.Is(err, ErrAddress) {
		return nil, nil
	}
	return v, err
}

// save writes both files. The chain goes first: what it has seen, it may not
// forget, while a view that is missing is fetched again.
func (k *Keeper) save(tracker [32]byte, t kept) error {
	b := t.append(make([]byte, 0, chainSize))
	if err := chainFile.Save(k.file(chainFile, tracker), b); err != nil {
		return err
	}
	var raw []byte
	if t.view != nil {
		raw = t.view.Raw()
	}
	return viewFile.Save(k.file(viewFile, tracker), AppendView(b, raw))
}

// append appends the chain and the fault.
func (t *kept) append(b []byte) []byte {
	fault, number := byte(0), uint64(0)
	if t.fault != nil {
		fault, number = 1, t.fault.Number
	}
	b = append(b, fault)
	b = binary.BigEndian.AppendUint64(b, number)
	b = append(b, byte(len(t.chain.links)))
	for _, l := range t.chain.links {
		b = binary.BigEndian.AppendUint64(b, l.number)
		b = append(b, l.hash[:]...)
	}
	return b
}

// kept reads what append wrote.
func (r *reader) kept(tracker [32]byte) *kept {
	t := &kept{}
	fault, number := r.byte(), r.uint64()
	switch {
	case fault == 1:
		t.fault = &EquivocationError{tracker, number}
	case fault != 0 || number != 0:
		r.fail("directory: fault %d of view %d", fault, number)
	}
	last := uint64(0)
	for i := range r.count("views seen", 0, chainLength) {
		l := chainLink{r.uint64(), r.key()}
		if i > 0 && l.number <= last {
			r.fail("directory: views seen out of order")
		}
		last = l.number
		t.chain.links = append(t.chain.links, l)
	}
	return t
}

// parseKept reads the body of a view's file; raw points into b.
func parseKept(b []byte, tracker [32]byte) (t *kept, raw []byte, err error) {
	r := reader{b: b}
	t = r.kept(tracker)
	size := r.uint32()
	if size > MaxView {
		r.fail("directory: view of %d bytes", size)
	}
	raw = r.next(int(size))
	if r.end(); r.err != nil {
		return nil, nil, r.err
	}
	return t, raw, nil
}
