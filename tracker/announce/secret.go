package announce

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"github.com/shoal-p2p/shoal/circuit/state"
)

// The body of a secret's file:
//
//	 0  4  week
//	 4 32  the secret of that week
//	36 32  the one of the week before, or zero once its overlap is over
const (
	secretSize    = 4 + 32 + 32
	secretOverlap = 24 * time.Hour

	// A file that slept for longer than this many weeks is started anew.
	maxRatchet = 520
)

var secretFile = &state.Kind{
	Name: "client-secret", Version: 1, Limit: int64(secretSize), Policy: state.Erase, What: "the secret of a client",
	Lost: "the client is somebody new in every swarm, and its old records stand beside the new ones for up to 90 minutes",
}

// Secret is what the keys of one client of this sidecar derive from. It is
// replaced by its hash every week (ISO 8601: Mondays, UTC), so that whoever
// gets hold of it later learns nothing of the weeks before. It may be used by
// many goroutines.
type Secret struct {
	path string

	mu       sync.Mutex
	week     uint32   // guarded by mu
	current  [32]byte // guarded by mu
	previous [32]byte // guarded by mu; zero when there is none
	unsaved  bool     // guarded by mu: the file is behind
}

// LogValue keeps secrets out of every log.
func (s *Secret) LogValue() slog.Value { return slog.StringValue("(secret)") }

// String is redacted like LogValue.
func (s *Secret) String() string { return "(secret)" }

// LoadSecret returns the secret of a client of this sidecar, kept in a file of
// its own in dir, or a new one when that is missing or damaged. Keep writes it.
func LoadSecret(dir, client string, now time.Time) (*Secret, error) {
	path := filepath.Join(dir, secretName(client))
	s := newSecret(now)
	s.unsaved = true
	_, err := secretFile.Load(path, func(b []byte) error {
		read, err := parseSecret(b)
		if err == nil {
			s = read
		}
		return err
	})
	s.path = path
	if err != nil {
		return nil, err
	}
	return s, nil
}

// secretName hides a client's name, which its user chose, and keeps it from
// being a path.
func secretName(client string) string {
	h := sha256.Sum256([]byte("shoal/1 client" + client))
	return "client-" + hex.EncodeToString(h[:8]) + ".secret"
}

func newSecret(now time.Time) *Secret {
	s := &Secret{week: weekOf(now)}
	rand.Read(s.current[:])
	return s
}

// Keep moves s to the week of now, forgets what is over, and writes s to its
// file, readable by its owner only, if that is behind. With an error s is good
// all the same, and the next Keep tries again. On a disk that moves what it
// rewrites the old bytes may linger.
func (s *Secret) Keep(now time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.advance(now) {
		s.unsaved = true
	}
	if !s.unsaved {
		return nil
	}
	if err := secretFile.Save(s.path, s.append(nil)); err != nil {
		return err
	}
	s.unsaved = false
	return nil
}

// advance moves s to the week of now and forgets what is over; it reports
// whether anything changed. A clock that was set back changes nothing: a hash
// has no way back. Called with mu held.
func (s *Secret) advance(now time.Time) bool {
	week := weekOf(now)
	switch {
	case week > s.week && week-s.week > maxRatchet:
		fresh := newSecret(now)
		s.current, s.previous = fresh.current, [32]byte{}
		s.week = week
		return true
	case week > s.week:
		for ; s.week < week; s.week++ {
			s.previous = s.current
			s.current = sha256.Sum256(append([]byte("shoal/1 week"), s.current[:]...))
		}
		s.dropPrevious(now)
		return true
	}
	return s.dropPrevious(now)
}

// dropPrevious erases the secret of the week before once its overlap is over.
// Called with mu held.
func (s *Secret) dropPrevious(now time.Time) bool {
	if s.previous == [32]byte{} || now.Before(weekStart(s.week).Add(secretOverlap)) {
		return false
	}
	s.previous = [32]byte{}
	return true
}

// Week returns the number of the week that s is in.
func (s *Secret) Week() uint32 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.week
}

// Member returns who the client is in the swarm of infohash in the week that s
// is in.
func (s *Secret) Member(infohash [20]byte) *Member {
	s.mu.Lock()
	key, week := s.current, s.week
	s.mu.Unlock()
	m := newMember(key, infohash)
	m.week = week
	return m
}

// InWeek says if a day of week has begun for the swarm of infohash. Days are
// the swarm's own, so that not all of a client's swarms turn at one moment.
func InWeek(infohash [20]byte, week uint32, now time.Time) bool {
	return Days(infohash, now)[0] >= dayOf(weekStart(week))
}

// Previous returns who the client was in that swarm last week, while peers may
// still hold the records it signed then, and false after that.
func (s *Secret) Previous(infohash [20]byte) (*Member, bool) {
	s.mu.Lock()
	key := s.previous
	s.mu.Unlock()
	if key == [32]byte{} {
		return nil, false
	}
	return newMember(key, infohash), true
}

func (s *Secret) append(b []byte) []byte {
	b = binary.BigEndian.AppendUint32(b, s.week)
	b = append(b, s.current[:]...)
	return append(b, s.previous[:]...)
}

func parseSecret(b []byte) (*Secret, error) {
	if len(b) != secretSize {
		return nil, fmt.Errorf("it holds %d bytes, want %d", len(b), secretSize)
	}
	r := reader{b: b}
	return &Secret{week: r.uint32(), current: r.key(), previous: r.key()}, nil
}

// firstMonday is the Monday of the ISO week that holds the start of 1970.
const firstMonday = -3 * daySeconds

func weekOf(t time.Time) uint32 {
	if s := t.Unix() - firstMonday; s > 0 {
		return uint32(s / (7 * daySeconds))
	}
	return 0
}

func weekStart(week uint32) time.Time {
	return time.Unix(firstMonday+int64(week)*7*daySeconds, 0)
}
