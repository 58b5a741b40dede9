package directory

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// What is known of a tracker, on disk:
//
//	 0  9  "shoalview"
//	 9  1  version, 1
//	10  1  1 when the tracker is believed no more
//	11  8  the number it used twice, or zero
//	19  1  views seen, at most 48; for each: number 8, hash 32
//	 …  4  length of the newest view, or zero; the view
//	 … 32  hash of all before
const stateMagic = "shoalview\x01"

// ErrCorrupt is what opening a damaged file returns. Such files are left as
// they are; without them, the views are fetched again, but a tracker that went
// back or told two stories is not recognised.
var ErrCorrupt = errors.New("file is corrupt")

func (k *Keeper) file(tracker [32]byte) string {
	return filepath.Join(k.dir, "view-"+hex.EncodeToString(tracker[:8]))
}

// load reads what was saved of a tracker: nothing, if it never was.
func (k *Keeper) load(tracker [32]byte) (*kept, error) {
	path := k.file(tracker)
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return &kept{}, nil
	}
	if err == nil && info.Size() > MaxView+4096 {
		err = fmt.Errorf("%w: %d bytes", ErrCorrupt, info.Size())
	}
	var b []byte
	if err == nil {
		b, err = os.ReadFile(path)
	}
	var t *kept
	var raw []byte
	if err == nil {
		t, raw, err = parseState(b, tracker)
	}
	if err == nil && len(raw) > 0 {
		t.view, err = k.reload(raw, tracker)
	}
	if err != nil {
		return nil, fmt.Errorf("directory: saved view %s: %w", path, err)
	}
	return t, nil
}

// reload verifies a saved view anew; one whose time is over is no view.
func (k *Keeper) reload(raw []byte, tracker [32]byte) (*View, error) {
	v, err := ParseView(raw)
	if err == nil {
		err = v.Verify(tracker, k.now(), k.cache)
	}
	switch {
	case errors.Is(err, ErrStale), errors.Is(err, errFuture):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return v, nil
}

func (k *Keeper) save(tracker [32]byte, t kept) error {
	size := len(stateMagic) + 1 + 8 + 1 + chainLength*(8+32) + 4 + sha256.Size
	if t.view != nil {
		size += len(t.view.Raw())
	}
	if err := writeFile(k.file(tracker), t.append(make([]byte, 0, size))); err != nil {
		return fmt.Errorf("directory: view could not be saved: %w", err)
	}
	return nil
}

func (t *kept) append(b []byte) []byte {
	b = append(b, stateMagic...)
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
	var raw []byte
	if t.view != nil {
		raw = t.view.Raw()
	}
	b = AppendView(b, raw)
	sum := sha256.Sum256(b)
	return append(b, sum[:]...)
}

// parseState reads what append wrote; raw points into b.
func parseState(b []byte, tracker [32]byte) (t *kept, raw []byte, err error) {
	body := len(b) - sha256.Size
	if body < 0 || !bytes.HasPrefix(b, []byte(stateMagic)) {
		return nil, nil, fmt.Errorf("%w: no view of this version", ErrCorrupt)
	}
	if sum := sha256.Sum256(b[:body]); !bytes.Equal(sum[:], b[body:]) {
		return nil, nil, fmt.Errorf("%w: checksum differs", ErrCorrupt)
	}
	r := reader{b: b[len(stateMagic):body]}
	t = &kept{}
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
	size := r.uint32()
	if size > MaxView {
		r.fail("directory: view of %d bytes", size)
	}
	raw = r.next(int(size))
	if r.end(); r.err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrCorrupt, r.err)
	}
	return t, raw, nil
}

// writeFile replaces path by b so that a crash leaves the old or the new, for
// its owner only.
func writeFile(path string, b []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".new-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // fails once renamed
	if _, err := f.Write(b); err != nil {
		f.Close()
		return err
	}
	if err := f.Sync(); err != nil {
		f.Close()
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
