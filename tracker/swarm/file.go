package swarm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/shoal-p2p/shoal/circuit/state"
	"github.com/shoal-p2p/shoal/tracker/announce"
)

// The file of a Memory: for each record the name of its swarm, 32 bytes, and
// the record (package announce).
const entrySize = 32 + announce.OuterSize

var recordsFile = &state.Kind{
	Name: "swarms", Version: 1, Limit: 1 << 34, Policy: state.Cache, What: "the saved records",
	Lost: "the tracker knows its swarms again within an announce interval, as members announce again",
}

// Save writes all records to path. Storing goes on meanwhile: what comes while
// it writes may be in it or not.
func (m *Memory) Save(path string) error {
	return recordsFile.SaveFrom(path, func(w io.Writer) error {
		return m.each(func(name [32]byte, record []byte) error {
			w.Write(name[:]) // a buffered writer keeps its first error
			_, err := w.Write(record)
			return err
		})
	})
}

// Load returns a store with the records that Save wrote to path and that have
// not ended, as far as l allows. It is empty when the file is missing or damaged.
func Load(path string, l Limits, now time.Time) (*Memory, error) {
	m := NewMemory(l)
	found, err := recordsFile.Scan(path, func(r io.Reader, size int64) error { return m.read(r, size, now) })
	if err != nil {
		return nil, err
	}
	if !found {
		return NewMemory(l), nil // without what was read before a record was refused
	}
	return m, nil
}

// read fills m from a file's body.
func (m *Memory) read(r io.Reader, size int64, now time.Time) error {
	if size%entrySize != 0 {
		return fmt.Errorf("%d bytes are no whole number of records", size)
	}
	entry := make([]byte, entrySize)
	for range size / entrySize {
		if _, err := io.ReadFull(r, entry); err != nil {
			return err
		}
		o, err := announce.ParseOuter(entry[32:])
		if err != nil {
			return err
		}
		if o.Expired(now) {
			continue
		}
		if err := m.Put(context.Background(), [32]byte(entry), &o, now); err != nil && !errors.Is(err, ErrFull) && !errors.Is(err, ErrStale) {
			return err
		}
	}
	return nil
}
