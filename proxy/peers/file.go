package peers

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// The file, big endian:
//
//	 0  16  magic
//	16   4  number of entries
//	20   4  number of days
//	24   …  entries, entrySize each, slots ascending
//	 …   …  days, daySize each, clients ascending
//	 …  32  SHA-256 of all before
//
// An entry:
//
//	 0   4  slot
//	 4  16  keyed hash of (client, swarm, peer)
//	20   8  keyed hash of (client, swarm)
//	28   8  keyed hash of the client
//	36   4  last use, hours since 1970
//	40   1  1: a handshake was finished, 2: in quarantine or free
//
// A day:
//
//	 0   8  keyed hash of the client
//	 8   4  day since 1970
//	12   4  stand-ins made on it
const (
	magic      = "shoal stand-in 1"
	headSize   = len(magic) + 4 + 4
	entrySize  = 4 + 16 + 8 + 8 + 4 + 1
	daySize    = 8 + 4 + 4
	maxDays    = 1 << 16
	saveEvery  = 10 * time.Second
	sweepEvery = time.Hour

	flagMet   = 1
	flagRests = 2
)

// ErrCorrupt is what Open's error wraps when the file was damaged.
var ErrCorrupt = errors.New("damaged")

// Open reads the table from file; one that does not exist is an empty table.
// The secret keys the hashes in it. A damaged file is renamed and an error
// says so: the next Open starts with an empty table.
func Open(file string, secret [32]byte) (*Table, error) {
	b, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return newTable(file, secret), nil
	}
	if err != nil {
		return nil, fmt.Errorf("peers: %w", err)
	}
	t := newTable(file, secret)
	if err := t.parse(b); err != nil {
		aside := file + ".damaged-" + time.Now().UTC().Format("20060102-150405")
		if e := os.Rename(file, aside); e != nil {
			return nil, fmt.Errorf("peers: %s is %w (%v) and can't be set aside: %v", file, ErrCorrupt, err, e)
		}
		return nil, fmt.Errorf("peers: %s is %w (%v); it was set aside as %s and the next start makes a new one", file, ErrCorrupt, err, aside)
	}
	t.sweep(time.Now())
	return t, nil
}

func newTable(file string, secret [32]byte) *Table {
	return &Table{
		file:    file,
		secret:  secret,
		entries: make(map[int]*entry),
		known:   make(map[id]int),
		live:    make(map[group]int),
		made:    make(map[clientID]made),
	}
}

// parse fills an empty table from a file's bytes.
func (t *Table) parse(b []byte) error {
	if len(b) < headSize+sha256.Size {
		return fmt.Errorf("%d bytes are too few", len(b))
	}
	if string(b[:len(magic)]) != magic {
		return errors.New("not a table of stand-ins, or of another version")
	}
	body, want := b[:len(b)-sha256.Size], b[len(b)-sha256.Size:]
	n := binary.BigEndian.Uint32(b[len(magic):])
	days := binary.BigEndian.Uint32(b[len(magic)+4:])
	if n > slots || days > maxDays {
		return fmt.Errorf("%d entries and %d days are too many", n, days)
	}
	if size := headSize + int(n)*entrySize + int(days)*daySize; len(body) != size {
		return fmt.Errorf("%d bytes, not %d", len(body), size)
	}
	if got := sha256.Sum256(body); !bytes.Equal(got[:], want) {
		return errors.New("checksum differs")
	}
	body = body[headSize:]
	last := -1
	for range n {
		e := new(entry)
		slot := binary.BigEndian.Uint32(body)
		copy(e.id[:], body[4:])
		copy(e.group[:], body[20:])
		copy(e.client[:], body[28:])
		e.used = int64(binary.BigEndian.Uint32(body[36:]))
		flags := body[40]
		e.met, e.rests = flags&flagMet != 0, flags&flagRests != 0
		if slot >= slots || int(slot) <= last || flags > flagMet|flagRests {
			return fmt.Errorf("entry of slot %d", slot)
		}
		if _, twice := t.known[e.id]; twice {
			return fmt.Errorf("slot %d repeats a peer", slot)
		}
		last = int(slot)
		t.entries[last] = e
		t.known[e.id] = last
		if !e.rests {
			t.live[e.group]++
		}
		body = body[entrySize:]
	}
	var before clientID
	for i := range days {
		var o clientID
		copy(o[:], body)
		if i > 0 && bytes.Compare(before[:], o[:]) >= 0 {
			return errors.New("days out of order")
		}
		before = o
		t.made[o] = made{
			day: int64(binary.BigEndian.Uint32(body[8:])),
			n:   int(binary.BigEndian.Uint32(body[12:])),
		}
		body = body[daySize:]
	}
	return nil
}

// append appends the table's file to b.
func (t *Table) append(b []byte) []byte {
	b = append(b, magic...)
	b = binary.BigEndian.AppendUint32(b, uint32(len(t.entries)))
	clients := sortedClients(t.made)
	b = binary.BigEndian.AppendUint32(b, uint32(len(clients)))
	for s := range slots {
		e := t.entries[s]
		if e == nil {
			continue
		}
		b = binary.BigEndian.AppendUint32(b, uint32(s))
		b = append(b, e.id[:]...)
		b = append(b, e.group[:]...)
		b = append(b, e.client[:]...)
		b = binary.BigEndian.AppendUint32(b, uint32(e.used))
		var flags byte
		if e.met {
			flags |= flagMet
		}
		if e.rests {
			flags |= flagRests
		}
		b = append(b, flags)
	}
	for _, o := range clients {
		b = append(b, o[:]...)
		b = binary.BigEndian.AppendUint32(b, uint32(t.made[o].day))
		b = binary.BigEndian.AppendUint32(b, uint32(t.made[o].n))
	}
	sum := sha256.Sum256(b)
	return append(b, sum[:]...)
}

// Run keeps the file up with the table until ctx ends, and saves a last time.
// A save that fails is said once and tried again.
func (t *Table) Run(ctx context.Context) error {
	save, sweep := time.NewTicker(saveEvery), time.NewTicker(sweepEvery)
	defer save.Stop()
	defer sweep.Stop()
	said := false
	for {
		select {
		case <-ctx.Done():
			return t.Save()
		case <-sweep.C:
			t.Sweep()
		case <-save.C:
			err := t.Save()
			if err != nil && !said {
				slog.Warn("stand-ins not saved", "error", err)
			}
			said = err != nil
		}
	}
}

// Save writes the table to its file if it changed. The file is whole at any
// moment and readable by its owner only.
func (t *Table) Save() error {
	t.mu.Lock()
	if !t.dirty {
		t.mu.Unlock()
		return nil
	}
	b := t.append(nil)
	t.dirty = false
	t.mu.Unlock()
	if err := replace(t.file, b); err != nil {
		t.mu.Lock()
		t.dirty = true
		t.mu.Unlock()
		return fmt.Errorf("peers: %w", err)
	}
	return nil
}

// replace puts b in file's place in one step.
func replace(file string, b []byte) error {
	f, err := os.CreateTemp(filepath.Dir(file), filepath.Base(file)+".new-*") // made 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // fails once renamed
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), file)
}

func sortedClients(m map[clientID]made) []clientID {
	return slices.SortedFunc(maps.Keys(m), func(a, b clientID) int { return bytes.Compare(a[:], b[:]) })
}
