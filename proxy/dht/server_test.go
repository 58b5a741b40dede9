package dht

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-p2p/shoal/proxy/swarm"
)

// fake is a Handler that takes some time.
type fake struct {
	delay time.Duration

	mu        sync.Mutex
	asked     int         // guarded by mu, like all below
	announced []Announced //
	sent      []Packet
	refused   []error
}

func (f *fake) Peers(ctx context.Context, h swarm.Hash) []netip.AddrPort {
	f.mu.Lock()
	f.asked++
	f.mu.Unlock()
	if f.delay == 0 {
		return peers
	}
	select {
	case <-time.After(f.delay):
		return peers
	case <-ctx.Done():
		return peers[:1]
	}
}

func (f *fake) Announced(a Announced) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.announced = append(f.announced, a)
}

func (f *fake) Send(p Packet) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.sent = append(f.sent, p)
}

func (f *fake) packets() []Packet {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.sent)
}

func (f *fake) Refused(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.refused = append(f.refused, err)
}

func TestAServerAnswersWhenPeersAreKnownOrAfterTwoSeconds(t *testing.T) {
	for _, c := range []struct {
		delay, want time.Duration
		values      int
	}{
		{300 * time.Millisecond, 300 * time.Millisecond, 2},
		{time.Minute, Wait, 1},
	} {
		synctest.Test(t, func(t *testing.T) {
			h := &fake{delay: c.delay}
			s := NewServer(config(), h)
			defer s.Close()
			s.Packet(getPeers(hashOf(1)), client, router)
			s.Packet(getPeers(hashOf(1)), client, router)
			s.Packet(getPeers(hashOf(1)), client, DefaultNodes[0])
			if n := len(h.packets()); n != 1 {
				t.Fatalf("%d packets at once, want 1", n)
			}
			time.Sleep(c.want - 1)
			synctest.Wait()
			if n := len(h.packets()); n != 1 {
				t.Fatalf("%d packets before %v, want 1", n, c.want)
			}
			time.Sleep(1)
			synctest.Wait()
			sent := h.packets()
			if len(sent) != 3 || h.asked != 1 {
				t.Fatalf("%d packets, %d asks, want 3 and 1", len(sent), h.asked)
			}
			for _, p := range sent[1:] {
				if n := len(body(t, p)["values"].([]any)); n != c.values {
					t.Errorf("%d values, want %d", n, c.values)
				}
			}
		})
	}
}

func TestAServerPassesOnAnnouncesAndRefusals(t *testing.T) {
	h := &fake{}
	s := NewServer(config(), h)
	hash := hashOf(1)
	s.Packet([]byte("garbage"), client, router)
	if len(h.refused) != 1 || !errors.Is(h.refused[0], ErrMalformed) {
		t.Errorf("refused %v", h.refused)
	}
	s.Packet(getPeers(hash), client, router)
	s.Packet(getPeers(hash), client, router)
	s.Packet(packet("announce_peer", "x", map[string]any{
		"info_hash": string(hash[:]), "port": 6881, "token": string(s.node.token(hash, client.Addr(), time.Now())),
	}), client, router)
	if len(h.announced) != 1 || h.announced[0] != (Announced{hash, 6881, false}) {
		t.Errorf("announced %v", h.announced)
	}
	s.Close()
	h.sent = nil
	s.Greet(client)
	if len(h.sent) != MaxNodes {
		t.Errorf("%d greetings", len(h.sent))
	}
}

func TestCloseEndsWhatWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &fake{delay: time.Hour}
		s := NewServer(config(), h)
		s.Packet(getPeers(hashOf(1)), client, router)
		s.Packet(getPeers(hashOf(1)), client, router)
		synctest.Wait()
		start := time.Now()
		s.Close()
		if d := time.Since(start); d != 0 {
			t.Errorf("Close took %v", d)
		}
		if n := len(h.packets()); n != 1 {
			t.Errorf("%d packets sent, want 1", n)
		}
	})
}
