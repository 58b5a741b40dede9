// Package swarmtest is what every swarm.Store must pass.
// Not here: what only one of them can do.
package swarmtest

import (
	"context"
	"encoding/binary"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/shoal-p2p/shoal/tracker/announce"
	"github.com/shoal-p2p/shoal/tracker/swarm"
)

// Now is the time at which the contract test's records are stored.
var Now = time.Date(2026, 5, 13, 12, 0, 0, 0, time.UTC)

// Name is the name of swarm n.
func Name(n int) (name [32]byte) {
	binary.BigEndian.PutUint64(name[:], uint64(n))
	name[31] = 0xff
	return name
}

// Outer is record n, which ends an hour after Now. No signature in it holds:
// stores don't look.
func Outer(n int, seeder bool) *announce.Outer {
	o := &announce.Outer{T: Name(n), Expiry: Now.Add(time.Hour).Unix(), Seeder: seeder, Stamp: uint64(n)}
	o.T[30] = 0x0a // a newline, as bytes go
	for i := range o.Box {
		o.Box[i] = byte(n + i)
	}
	for i := range o.Sig {
		o.Sig[i] = byte(n ^ i)
	}
	return o
}

// TestStore runs the contract: open returns an empty store with these limits.
func TestStore(t *testing.T, open func(t *testing.T, l swarm.Limits) swarm.Store) {
	for name, test := range map[string]func(c *check){
		"GivesBackWhatWasPut":              givesBack,
		"KeepsOneRecordPerKey":             keepsOne,
		"RefusesAnOlderRecord":             refusesOlder,
		"CountsSeedersAndLeechers":         counts,
		"RemovesWhatItIsToldTo":            removes,
		"ForgetsWhatEnded":                 expires,
		"ChoosesAtRandom":                  random,
		"KeepsSwarmsApart":                 apart,
		"RefusesBeyondTheLimitOfRecords":   fullOfRecords,
		"RefusesBeyondTheLimitOfSwarms":    fullOfSwarms,
		"RefusesBeyondTheLimitOfOneSwarm":  fullSwarm,
		"HasRoomAgainAfterRemovalOrExpiry": roomAgain,
		"IsForManyGoroutines":              concurrent,
	} {
		t.Run(name, func(t *testing.T) {
			test(&check{t, func(l swarm.Limits) swarm.Store { return open(t, l) }})
		})
	}
}

type check struct {
	*testing.T
	open func(l swarm.Limits) swarm.Store
}

func (c *check) put(s swarm.Store, name [32]byte, o *announce.Outer, want error) {
	c.Helper()
	if err := s.Put(context.Background(), name, o, Now); !errors.Is(err, want) {
		c.Errorf("Put = %v, want %v", err, want)
	}
}

func (c *check) remove(s swarm.Store, name, t [32]byte) {
	c.Helper()
	if err := s.Remove(context.Background(), name, t); err != nil {
		c.Error(err)
	}
}

func (c *check) get(s swarm.Store, name [32]byte, n int, now time.Time) ([]announce.Outer, swarm.Counts) {
	c.Helper()
	b, counts, err := s.Get(context.Background(), nil, name, n, now)
	if err != nil {
		c.Error(err)
	}
	records, err := Records(b)
	if err != nil {
		c.Error(err)
	}
	return records, counts
}

func (c *check) expire(s swarm.Store, now time.Time) (all int) {
	c.Helper()
	for {
		n, err := s.Expire(context.Background(), now)
		if err != nil {
			c.Error(err)
		}
		if n == 0 {
			return all
		}
		all += n
	}
}

// Records reads what a store's Get has appended.
func Records(b []byte) (records []announce.Outer, err error) {
	for one := range slices.Chunk(b, announce.OuterSize) {
		o, err := announce.ParseOuter(one)
		if err != nil {
			return nil, err
		}
		records = append(records, o)
	}
	return records, nil
}

func givesBack(c *check) {
	s := c.open(swarm.Limits{})
	if records, counts := c.get(s, Name(1), 50, Now); len(records) != 0 || counts != (swarm.Counts{}) {
		c.Errorf("an empty store has %d records, %+v", len(records), counts)
	}
	want := Outer(1, true)
	c.put(s, Name(1), want, nil)
	records, _ := c.get(s, Name(1), 50, Now)
	if len(records) != 1 || records[0] != *want {
		c.Errorf("%d records, not the one put", len(records))
	}
	if records, counts := c.get(s, Name(1), 0, Now); len(records) != 0 || counts.Seeders != 1 {
		c.Errorf("asked for none: %d records, %+v", len(records), counts)
	}
}

func keepsOne(c *check) {
	s := c.open(swarm.Limits{})
	o := Outer(1, false)
	c.put(s, Name(1), o, nil)
	o.Expiry, o.Seeder, o.Stamp = o.Expiry+60, true, 99
	c.put(s, Name(1), o, nil)
	records, counts := c.get(s, Name(1), 50, Now)
	if len(records) != 1 || records[0] != *o || counts != (swarm.Counts{Seeders: 1}) {
		c.Errorf("%d records, %+v, want the newer one", len(records), counts)
	}
	o.Expiry, o.Seeder = o.Expiry+60, false
	c.put(s, Name(1), o, nil)
	if _, counts := c.get(s, Name(1), 50, Now); counts != (swarm.Counts{Leechers: 1}) {
		c.Errorf("%+v, want one leecher", counts)
	}
}

func refusesOlder(c *check) {
	s := c.open(swarm.Limits{})
	newer, older := Outer(1, false), Outer(1, true)
	newer.Expiry += 60
	c.put(s, Name(1), newer, nil)
	c.put(s, Name(1), older, swarm.ErrStale)
	if records, _ := c.get(s, Name(1), 50, Now); len(records) != 1 || records[0] != *newer {
		c.Error("an older record took the newer one's place")
	}
	c.put(s, Name(2), older, nil)
}

func counts(c *check) {
	s := c.open(swarm.Limits{})
	for n := range 30 {
		c.put(s, Name(1), Outer(n, n < 10), nil)
	}
	if _, counts := c.get(s, Name(1), 5, Now); counts != (swarm.Counts{Seeders: 10, Leechers: 20}) {
		c.Errorf("%+v, want 10 and 20", counts)
	}
}

func removes(c *check) {
	s := c.open(swarm.Limits{})
	for n := range 5 {
		c.put(s, Name(1), Outer(n, n%2 == 0), nil)
	}
	c.remove(s, Name(1), Outer(2, true).T)
	c.remove(s, Name(1), Outer(77, true).T)
	c.remove(s, Name(9), Outer(1, true).T)
	records, counts := c.get(s, Name(1), 50, Now)
	if len(records) != 4 || counts != (swarm.Counts{Seeders: 2, Leechers: 2}) {
		c.Errorf("%d records, %+v", len(records), counts)
	}
	for _, o := range records {
		if o.T == Outer(2, true).T {
			c.Error("the removed one is still there")
		}
	}
}

func expires(c *check) {
	s := c.open(swarm.Limits{})
	for n := range 3000 {
		o := Outer(n, n%2 == 0)
		if n >= 10 {
			o.Expiry -= 600
		}
		c.put(s, Name(n%7), o, nil)
	}
	after := Now.Add(50 * time.Minute)
	for n := range 7 {
		records, _ := c.get(s, Name(n), 5000, after)
		for _, o := range records {
			if o.Expired(after) {
				c.Fatal("handed out a record that ended")
			}
		}
	}
	if n := c.expire(s, after); n != 2990 {
		c.Errorf("%d records ended, want 2990", n)
	}
	left := 0
	for n := range 7 {
		records, counts := c.get(s, Name(n), 50, after)
		left += len(records)
		if counts.Seeders+counts.Leechers != len(records) {
			c.Errorf("counts %+v for %d records", counts, len(records))
		}
	}
	if left != 10 {
		c.Errorf("%d records left, want 10", left)
	}
}

func random(c *check) {
	s := c.open(swarm.Limits{})
	for n := range 100 {
		c.put(s, Name(1), Outer(n, false), nil)
	}
	times := make(map[[32]byte]int)
	const rounds, each = 100, 10
	for range rounds {
		records, _ := c.get(s, Name(1), each, Now)
		if len(records) != each {
			c.Fatalf("%d records, want %d", len(records), each)
		}
		round := make(map[[32]byte]bool)
		for _, o := range records {
			round[o.T] = true
			times[o.T]++
		}
		if len(round) != each {
			c.Fatal("one record twice in an answer")
		}
	}
	// Each is expected 10 times, give or take 3; 40 would be ten deviations off.
	for _, n := range times {
		if n > 40 {
			c.Errorf("one record came %d times of %d", n, rounds)
		}
	}
	if len(times) < 95 {
		c.Errorf("only %d of 100 records ever came", len(times))
	}
}

func apart(c *check) {
	s := c.open(swarm.Limits{})
	for n := range 50 {
		c.put(s, Name(n), Outer(1, true), nil)
	}
	c.remove(s, Name(7), Outer(1, true).T)
	for n := range 50 {
		records, _ := c.get(s, Name(n), 50, Now)
		if want := n != 7; (len(records) == 1) != want {
			c.Errorf("swarm %d has %d records", n, len(records))
		}
	}
}

func fullOfRecords(c *check) {
	s := c.open(swarm.Limits{Records: 5})
	for n := range 5 {
		c.put(s, Name(n%2), Outer(n, true), nil)
	}
	c.put(s, Name(0), Outer(6, true), swarm.ErrFull)
	c.put(s, Name(9), Outer(6, true), swarm.ErrFull)
	c.put(s, Name(0), Outer(0, false), nil) // there already
}

func fullOfSwarms(c *check) {
	s := c.open(swarm.Limits{Swarms: 3})
	for n := range 3 {
		c.put(s, Name(n), Outer(1, true), nil)
	}
	c.put(s, Name(3), Outer(1, true), swarm.ErrFull)
	c.put(s, Name(2), Outer(2, true), nil)
	c.remove(s, Name(0), Outer(1, true).T)
	c.put(s, Name(3), Outer(1, true), nil)
}

func fullSwarm(c *check) {
	s := c.open(swarm.Limits{PerSwarm: 3})
	for n := range 3 {
		c.put(s, Name(0), Outer(n, true), nil)
	}
	c.put(s, Name(0), Outer(3, true), swarm.ErrFull)
	c.put(s, Name(1), Outer(3, true), nil)
}

func roomAgain(c *check) {
	s := c.open(swarm.Limits{Records: 2, Swarms: 2})
	c.put(s, Name(0), Outer(0, true), nil)
	c.put(s, Name(1), Outer(1, true), nil)
	c.put(s, Name(2), Outer(2, true), swarm.ErrFull)
	c.remove(s, Name(0), Outer(0, true).T)
	c.put(s, Name(2), Outer(2, true), nil)
	if n := c.expire(s, Now.Add(time.Hour)); n != 2 {
		c.Errorf("%d ended, want 2", n)
	}
	c.put(s, Name(5), Outer(5, true), nil)
	c.put(s, Name(6), Outer(6, true), nil)
}

func concurrent(c *check) {
	s := c.open(swarm.Limits{Records: 150})
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for n := range 50 {
				err := s.Put(context.Background(), Name(n%5), Outer(g*50+n, n%2 == 0), Now)
				if err != nil && !errors.Is(err, swarm.ErrFull) {
					c.Error(err)
				}
				if _, _, err := s.Get(context.Background(), nil, Name(n%5), 10, Now); err != nil {
					c.Error(err)
				}
				if n%10 == 9 {
					if err := s.Remove(context.Background(), Name(n%5), Outer(g*50+n, true).T); err != nil {
						c.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
	all := 0
	for n := range 5 {
		_, counts := c.get(s, Name(n), 0, Now)
		all += counts.Seeders + counts.Leechers
	}
	if n := c.expire(s, Now.Add(time.Hour)); n != all || n > 150 {
		c.Errorf("%d records counted, %d ended, at most 150", all, n)
	}
}
