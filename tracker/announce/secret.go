package announce

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// A secret on disk, secretSize bytes:
//
//	 0  8  "shoalsec"
//	 8  1  version, 1
//	 9  4  week
//	13 32  the secret of that week
//	45 32  the one of the week before, or zero once its overlap is over
//	77 32  hash of what stands before
const (
	secretMagic   = "shoalsec\x01"
	secretSize    = len(secretMagic) + 4 + 32 + 32 + sha256.Size
	secretOverlap = 24 * time.Hour

	// A file that slept for longer than this many weeks is started anew.
	maxRatchet = 520
)

// ErrCorrupt is what loading a damaged file returns. The file is left as it is:
// what to do with it is for its owner to say.
var ErrCorrupt = errors.New("file is corrupt")

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
}

// LogValue keeps secrets out of every log.
func (s *Secret) LogValue() slog.Value { return slog.StringValue("(secret)") }

// String is redacted like LogValue.
func (s *Secret) String() string { return "(secret)" }

// LoadSecret returns the secret of a client of this sidecar, kept in a file of
// its own in dir, and makes both when missing. A damaged file is ErrCorrupt.
func LoadSecret(dir, client string, now time.Time) (*Secret, error) {
	path := filepath.Join(dir, secretName(client))
	b, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		s := newSecret(now)
		s.path = path
		return s, s.Save()
	case err != nil:
		return nil, fmt.Errorf("announce: secret: %w", err)
	}
	s, err := parseSecret(b)
	if err != nil {
		return nil, fmt.Errorf("announce: secret %s: %w", path, err)
	}
	s.path = path
	if s.Advance(now) {
		return s, s.Save()
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

// Save writes s to its file: whole or not at all, readable by its owner only.
func (s *Secret) Save() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := writeFile(s.path, s.append(nil)); err != nil {
		return fmt.Errorf("announce: secret: %w", err)
	}
	return nil
}

// Advance moves s to the week of now and forgets what is over; it reports
// whether anything changed, so that the caller saves it. A clock that was set
// back changes nothing: a hash has no way back.
func (s *Secret) Advance(now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
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
	b = append(b, secretMagic...)
	b = binary.BigEndian.AppendUint32(b, s.week)
	b = append(b, s.current[:]...)
	b = append(b, s.previous[:]...)
	sum := sha256.Sum256(b)
	return append(b, sum[:]...)
}

func parseSecret(b []byte) (*Secret, error) {
	if len(b) != secretSize {
		return nil, fmt.Errorf("%w: %d bytes, want %d", ErrCorrupt, len(b), secretSize)
	}
	if !bytes.HasPrefix(b, []byte(secretMagic)) {
		return nil, fmt.Errorf("%w: no secret of this version", ErrCorrupt)
	}
	sum := sha256.Sum256(b[:secretSize-sha256.Size])
	if !bytes.Equal(sum[:], b[secretSize-sha256.Size:]) {
		return nil, fmt.Errorf("%w: checksum differs", ErrCorrupt)
	}
	r := reader{b: b[len(secretMagic):]}
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

// writeFile replaces path by b so that a crash leaves the old or the new. On a
// disk that moves what it rewrites the old bytes may linger; nothing here can help that.
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
