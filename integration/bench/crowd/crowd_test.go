package crowd

import (
	"context"
	"log/slog"
	"net/netip"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/shoal-p2p/shoal/tracker"
	"github.com/shoal-p2p/shoal/tracker/announce"
	"github.com/shoal-p2p/shoal/tracker/directory"
)

func TestADirectoryIsFetchedAndChosenFrom(t *testing.T) {
	var from Served
	if err := (Views{}).Serve(Directory{Relays: 50, Trackers: 3}, &from); err != nil {
		t.Fatal(err)
	}
	var got Fetched
	if err := (Views{}).Fetch(from, &got); err != nil {
		t.Fatal(err)
	}
	if got.Relays != 50 || got.All <= 0 || got.All < got.Fetch+got.Verify {
		t.Errorf("Fetch = %+v, want 50 relays, and parts no longer than the whole", got)
	}
}

func TestATrackerAnswersACrowdFromWhatItHeldBefore(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "tracker")
	hashes := [][20]byte{{1}, {2}, {3}}
	const members, repeat = 60, 4
	if err := Records(dir, hashes, members); err != nil {
		t.Fatal(err)
	}
	tr, err := tracker.New(tracker.Config{
		State: dir, Listen: "127.0.0.1:0", Network: directory.Network{Test: true, ViewEvery: directory.ViewEvery},
		Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { tr.Run(ctx) })
	defer wg.Wait()
	defer cancel()
	var got Announced
	err = new(Crowd).Announce(Members{Link: tr.Link().String(), Hashes: hashes, Repeat: repeat, Limit: 20 * time.Second}, &got)
	if err != nil {
		t.Fatal(err)
	}
	if want := len(hashes) * repeat; got.Count != want || got.Records != want*announce.MaxRecords {
		t.Errorf("Announce = %+v, want %d answers with %d records each", got, want, announce.MaxRecords)
	}
}

func TestARelayThatIsNotListedIsAnError(t *testing.T) {
	n := directory.Network{Trackers: []directory.Tracker{{Key: [32]byte{1}, Addr: netip.MustParseAddrPort("127.0.0.1:1")}}, Test: true}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if got, err := relays(ctx, n, [32]byte{2}); err == nil {
		t.Errorf("relays = %v of a network that does not run", got)
	}
}
