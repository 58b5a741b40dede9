package swarm_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/shoal-p2p/shoal/tracker/announce"
	"github.com/shoal-p2p/shoal/tracker/swarm"
	"github.com/shoal-p2p/shoal/tracker/swarm/swarmtest"
)

var ctx = context.Background()

func TestMemoryKeepsTheContractOfAStore(t *testing.T) {
	swarmtest.TestStore(t, func(t *testing.T, l swarm.Limits) swarm.Store { return swarm.NewMemory(l) })
}

func filled(t testing.TB, swarms, each int) *swarm.Memory {
	m := swarm.NewMemory(swarm.Limits{})
	for s := range swarms {
		for n := range each {
			if err := m.Put(ctx, swarmtest.Name(s), swarmtest.Outer(n, n%3 == 0), swarmtest.Now); err != nil {
				t.Fatal(err)
			}
		}
	}
	return m
}

func TestFullMemoryMakesRoomOfWhatEnded(t *testing.T) {
	m := swarm.NewMemory(swarm.Limits{Records: 1})
	first := swarmtest.Outer(1, true)
	if err := m.Put(ctx, swarmtest.Name(1), first, swarmtest.Now); err != nil {
		t.Fatal(err)
	}
	if err := m.Put(ctx, swarmtest.Name(1), swarmtest.Outer(2, true), swarmtest.Now); !errors.Is(err, swarm.ErrFull) {
		t.Errorf("Put = %v, want %v", err, swarm.ErrFull)
	}
	second := swarmtest.Outer(2, true)
	second.Expiry += 3600
	if err := m.Put(ctx, swarmtest.Name(1), second, swarmtest.Now.Add(time.Hour)); err != nil {
		t.Errorf("Put = %v though all there was has ended", err)
	}
}

func TestOneExpireTakesOutAllThatEnded(t *testing.T) {
	m := filled(t, 1, 10_000) // in one shard
	if n, err := m.Expire(ctx, swarmtest.Now.Add(time.Hour)); n != 10_000 || err != nil {
		t.Errorf("Expire = %d, %v, want 10000", n, err)
	}
	if records, swarms := m.Len(); records != 0 || swarms != 0 {
		t.Errorf("%d records in %d swarms are left", records, swarms)
	}
}

func TestMemorySurvivesARestart(t *testing.T) {
	file := filepath.Join(t.TempDir(), "swarms")
	if m, err := swarm.Load(file, swarm.Limits{}, swarmtest.Now); err != nil || m == nil {
		t.Fatalf("Load of nothing = %v", err)
	}
	m := filled(t, 40, 30)
	short := swarmtest.Outer(100, true)
	short.Expiry -= 1800
	if err := m.Put(ctx, swarmtest.Name(0), short, swarmtest.Now); err != nil {
		t.Fatal(err)
	}
	if err := m.Save(file); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, want 0600", info.Mode())
	}
	got, err := swarm.Load(file, swarm.Limits{}, swarmtest.Now.Add(45*time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	if records, swarms := got.Len(); records != 1200 || swarms != 40 {
		t.Errorf("%d records in %d swarms, want 1200 in 40", records, swarms)
	}
	b, counts, _ := got.Get(ctx, nil, swarmtest.Name(0), 50, swarmtest.Now)
	records, err := swarmtest.Records(b)
	if err != nil {
		t.Fatal(err)
	}
	if len(records) != 30 || counts.Seeders != 10 {
		t.Errorf("%d records, %+v", len(records), counts)
	}
	for _, o := range records {
		if o != *swarmtest.Outer(int(o.Stamp), o.Seeder) {
			t.Error("a record differs")
		}
	}
	if m, err := swarm.Load(file, swarm.Limits{Records: 7}, swarmtest.Now); err != nil {
		t.Errorf("Load with less room: %v", err)
	} else if n, _ := m.Len(); n != 7 {
		t.Errorf("%d records, want 7", n)
	}
}

func TestADamagedFileIsSetAside(t *testing.T) {
	file := filepath.Join(t.TempDir(), "swarms")
	if err := filled(t, 2, 2).Save(file); err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(good); i += 7 {
		changed := bytes.Clone(good)
		changed[i] ^= 0x40
		for _, b := range [][]byte{good[:i], changed} {
			if err := os.WriteFile(file, b, 0o600); err != nil {
				t.Fatal(err)
			}
			m, err := swarm.Load(file, swarm.Limits{}, swarmtest.Now)
			if err != nil {
				t.Fatalf("byte %d: %v", i, err)
			}
			if n, _ := m.Len(); n != 0 {
				t.Errorf("byte %d: %d records", i, n)
			}
			if kept, _ := os.ReadFile(file + ".damaged-1"); !bytes.Equal(kept, b) {
				t.Errorf("byte %d: not kept", i)
			}
			os.Remove(file + ".damaged-1")
		}
	}
}

func TestRecordCostsLittleMoreThanItsBytes(t *testing.T) {
	for _, c := range []struct{ swarms, each, most int }{
		{20_000, 1, announce.OuterSize + 600}, // swarms of one, half-empty slabs
		{1000, 50, announce.OuterSize + 300},
	} {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		m := filled(t, c.swarms, c.each)
		runtime.GC()
		runtime.ReadMemStats(&after)
		each := int(after.HeapAlloc-before.HeapAlloc) / (c.swarms * c.each)
		t.Logf("%d swarms of %d: %d bytes a record", c.swarms, c.each, each)
		if each > c.most {
			t.Errorf("%d swarms of %d: %d bytes a record, at most %d", c.swarms, c.each, each, c.most)
		}
		runtime.KeepAlive(m)
	}
}

func BenchmarkMemoryPut(b *testing.B) {
	m := filled(b, 1000, 100)
	o := swarmtest.Outer(5, true)
	for i := 0; b.Loop(); i++ {
		m.Put(ctx, swarmtest.Name(i%1000), o, swarmtest.Now)
	}
}

func BenchmarkMemoryGet50(b *testing.B) {
	m := filled(b, 1000, 100)
	for i := 0; b.Loop(); i++ {
		m.Get(ctx, nil, swarmtest.Name(i%1000), 50, swarmtest.Now)
	}
}

// BenchmarkMillionRecords reports what a tracker with a million records takes.
func BenchmarkMillionRecords(b *testing.B) {
	for _, c := range []struct {
		name         string
		swarms, each int
	}{{"swarms of 1", 500_000, 1}, {"swarms of 10", 100_000, 10}, {"swarms of 10000", 100, 10_000}} {
		b.Run(c.name, func(b *testing.B) {
			for b.Loop() {
				var before, after runtime.MemStats
				runtime.GC()
				runtime.ReadMemStats(&before)
				m := filled(b, c.swarms, c.each)
				runtime.GC()
				runtime.ReadMemStats(&after)
				b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/float64(c.swarms*c.each), "B/record")
				at := time.Now()
				m.Expire(ctx, swarmtest.Now)
				b.ReportMetric(float64(time.Since(at).Milliseconds()), "ms/sweep")
				runtime.KeepAlive(m)
			}
		})
	}
}
