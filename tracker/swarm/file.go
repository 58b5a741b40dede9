package swarm

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/shoal-p2p/shoal/tracker/announce"
)

// A Memory on disk:
//
//	0   10  "shoalswarm"
//	10   1  version, 1
//	11   …  for each record: the name of its swarm 32, the record (package announce)
//	 …  32  hash of all before
const (
	fileMagic = "shoalswarm\x01"
	entrySize = 32 + announce.OuterSize
)

// ErrCorrupt is what Load returns for a damaged file, which it leaves as it is.
// Without the file, a tracker knows its swarms again within an announce interval.
var ErrCorrupt = errors.New("file is corrupt")

// Save writes all records to path, so that a crash leaves the old or the new,
// for its owner only. Storing goes on meanwhile: what comes while it writes may
// be in it or not.
func (m *Memory) Save(path string) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".new-*") // mode 0600
	if err != nil {
		return fmt.Errorf("swarm: save: %w", err)
	}
	defer os.Remove(f.Name()) // fails once renamed
	err = m.write(f)
	if err == nil {
		err = f.Sync()
	}
	if err2 := f.Close(); err == nil {
		err = err2
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("swarm: save: %w", err)
	}
	return nil
}

func (m *Memory) write(f io.Writer) error {
	sum := sha256.New()
	w := bufio.NewWriterSize(io.MultiWriter(f, sum), 1<<20)
	w.WriteString(fileMagic)
	err := m.each(func(name [32]byte, record []byte) error {
		w.Write(name[:])
		_, err := w.Write(record)
		return err
	})
	if err != nil {
		return err
	}
	if err := w.Flush(); err != nil {
		return err
	}
	_, err = f.Write(sum.Sum(nil))
	return err
}

// Load returns a store with the records that Save wrote to path and that have
// not ended, as far as l allows; an empty one when there is no such file.
func Load(path string, l Limits, now time.Time) (*Memory, error) {
	m := NewMemory(l)
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return m, nil
	}
	if err == nil {
		defer f.Close()
		err = m.read(f, now)
	}
	if err != nil {
		return nil, fmt.Errorf("swarm: saved records %s: %w", path, err)
	}
	return m, nil
}

// read fills m from f. What it put before it finds the file damaged is the
// caller's to throw away.
func (m *Memory) read(f *os.File, now time.Time) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	records := info.Size() - int64(len(fileMagic)) - sha256.Size
	if records < 0 || records%entrySize != 0 {
		return fmt.Errorf("%w: %d bytes", ErrCorrupt, info.Size())
	}
	r := summed{bufio.NewReaderSize(f, 1<<20), sha256.New()}
	magic := make([]byte, len(fileMagic))
	if err := r.full(magic); err != nil {
		return err
	}
	if string(magic) != fileMagic {
		return fmt.Errorf("%w: no records of this version", ErrCorrupt)
	}
	entry := make([]byte, entrySize)
	for range records / entrySize {
		if err := r.full(entry); err != nil {
			return err
		}
		o, err := announce.ParseOuter(entry[32:])
		if err != nil {
			return fmt.Errorf("%w: %w", ErrCorrupt, err)
		}
		if o.Expired(now) {
			continue
		}
		if err := m.Put(context.Background(), [32]byte(entry), &o, now); err != nil && !errors.Is(err, ErrFull) && !errors.Is(err, ErrStale) {
			return err
		}
	}
	want := r.sum.Sum(nil)
	got := make([]byte, sha256.Size)
	if _, err := io.ReadFull(r.r, got); err != nil {
		return err
	}
	if !bytes.Equal(got, want) {
		return fmt.Errorf("%w: checksum differs", ErrCorrupt)
	}
	return nil
}

// summed reads and hashes what it read.
type summed struct {
	r   io.Reader
	sum hash.Hash
}

func (s *summed) full(b []byte) error {
	if _, err := io.ReadFull(s.r, b); err != nil {
		return err
	}
	s.sum.Write(b)
	return nil
}
