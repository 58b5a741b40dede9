package peers

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/shoal-p2p/shoal/circuit/state"
)

// The file's body, big endian:
//
//	0  4  number of entries
//	4  4  number of days
//	8  …  entries, entrySize each, slots ascending
//	…  …  days, daySize each, clients ascending
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
	headSize   = 4 + 4
	entrySize  = 4 + 16 + 8 + 8 + 4 + 1
	daySize    = 8 + 4 + 4
	maxDays    = 1 << 16
	saveEvery  = 10 * time.Second
	sweepEvery = time.Hour

	flagMet   = 1
	flagRests = 2
)

var standInsFile = &state.Kind{
	Name: "stand-ins", Version: 1, Limit: headSize + slots*entrySize + maxDays*daySize, Policy: state.Erase, What: "the stand-ins of peers",
	Lost: "a client that dials a peer of an earlier run may reach nobody until it announces again",
}

// Open reads the table from file; one that is missing or damaged is an empty
// table. The secret keys the hashes in it.
func Open(file string, secret [32]byte) (*Table, error) {
	t := newTable(file, secret)
	found, err := standInsFile.Load(file, t.parse)
	if err != nil {
		return nil, err
	}
	if !found {
		return newTable(file, secret), nil // without what was read before an entry was refused
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
	if len(b) < headSize {
		return fmt.Errorf("%d bytes are too few", len(b))
	}
	n, days := binary.BigEndian.Uint32(b), binary.BigEndian.Uint32(b[4:])
	if n > slots || days > maxDays {
		return fmt.Errorf("%d entries and %d days are too many", n, days)
	}
	if size := headSize + int(n)*entrySize + int(days)*daySize; len(b) != size {
		return fmt.Errorf("%d bytes, not %d", len(b), size)
	}
	body := b[headSize:]
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
	return b
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

// Save writes the table to its file if it changed, readable by its owner only.
func (t *Table) Save() error {
	t.mu.Lock()
	if !t.dirty {
		t.mu.Unlock()
		return nil
	}
	b := t.append(nil)
	t.dirty = false
	t.mu.Unlock()
	if err := standInsFile.Save(t.file, b); err != nil {
		t.mu.Lock()
		t.dirty = true
		t.mu.Unlock()
		return err
	}
	return nil
}

func sortedClients(m map[clientID]made) []clientID {
	return slices.SortedFunc(maps.Keys(m), func(a, b clientID) int { return bytes.Compare(a[:], b[:]) })
}
