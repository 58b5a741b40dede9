package hop

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/shoal-p2p/shoal/circuit/onion"
)

const (
	keyLife    = 24 * time.Hour // how long an onion key is the current one
	keyOverlap = 24 * time.Hour // and how long it then still opens CREATEs
)

// Keys are the identity of a relay or tracker and its onion keys, on disk for
// their owner only.
type Keys struct {
	Identity ed25519.PrivateKey

	dir string
	mu  sync.Mutex
	all []datedKey // guarded by mu, oldest first; the last is current
}

type datedKey struct {
	key  *onion.PrivateKey
	from time.Time
}

// storedKey is an onion key in the file.
type storedKey struct {
	Number byte      `json:"number"`
	Secret []byte    `json:"secret"`
	From   time.Time `json:"from"`
}

// OpenKeys reads the keys in dir, which it makes, mode 0700, with what is
// missing in it. A damaged file is an error and stays as it is: an identity is
// not replaced by accident.
func OpenKeys(dir string) (*Keys, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("state folder: %w", err)
	}
	k := &Keys{dir: dir}
	seed, err := os.ReadFile(k.path("identity"))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		seed = make([]byte, ed25519.SeedSize)
		rand.Read(seed)
		if err := k.write("identity", seed); err != nil {
			return nil, err
		}
	case err != nil:
		return nil, fmt.Errorf("identity: %w", err)
	case len(seed) != ed25519.SeedSize:
		return nil, fmt.Errorf("%s: %d bytes, want %d: the file is damaged; restore it, or remove it to become somebody new", k.path("identity"), len(seed), ed25519.SeedSize)
	}
	k.Identity = ed25519.NewKeyFromSeed(seed)
	if err := k.load(); err != nil {
		return nil, err
	}
	return k, nil
}

func (k *Keys) path(name string) string { return filepath.Join(k.dir, name) }

func (k *Keys) load() error {
	b, err := os.ReadFile(k.path("onion-keys"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("onion keys: %w", err)
	}
	var stored []storedKey
	if err := json.Unmarshal(b, &stored); err != nil || len(stored) > 8 {
		return fmt.Errorf("%s: damaged: remove it, and new keys are made", k.path("onion-keys"))
	}
	for _, s := range stored {
		key, err := onion.ParsePrivateKey(s.Secret, s.Number)
		if err != nil {
			return fmt.Errorf("%s: damaged: remove it, and new keys are made: %w", k.path("onion-keys"), err)
		}
		k.all = append(k.all, datedKey{key, s.From})
	}
	return nil
}

// Rotate makes a new onion key when the current one has had its day, erases
// those whose overlap is over, and reports whether the current one changed.
// Keys are used only once they are on the disk.
func (k *Keys) Rotate(now time.Time) (bool, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	changed := false
	var next []datedKey
	for _, d := range k.all {
		if d.from.After(now) { // the clock was ahead once: the key lives no longer for it
			d.from, changed = now, true
		}
		if now.Sub(d.from) >= keyLife+keyOverlap {
			changed = true
			continue
		}
		next = append(next, d)
	}
	fresh := len(next) == 0 || now.Sub(next[len(next)-1].from) >= keyLife
	if fresh {
		d, err := k.another(now)
		if err != nil {
			return false, err
		}
		next = append(next, d)
	}
	if !fresh && !changed {
		return false, nil
	}
	if err := k.use(next); err != nil {
		return false, err
	}
	return fresh, nil
}

// Replace forgets every onion key and makes a new one: after a crash it is not
// known which CREATEs the old ones have served.
func (k *Keys) Replace(now time.Time) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.all) == 0 {
		return nil
	}
	d, err := k.another(now)
	if err != nil {
		return err
	}
	return k.use([]datedKey{d})
}

// another makes the key after the newest. Caller holds mu.
func (k *Keys) another(now time.Time) (datedKey, error) {
	var number byte = 1
	if n := len(k.all); n > 0 {
		number = k.all[n-1].key.Public().Number() + 1
	}
	key, err := onion.GenerateKey(number)
	return datedKey{key, now}, err
}

// use makes next the keys, after writing them. Caller holds mu.
func (k *Keys) use(next []datedKey) error {
	stored := make([]storedKey, len(next))
	for i, d := range next {
		stored[i] = storedKey{d.key.Public().Number(), d.key.Bytes(), d.from}
	}
	b, err := json.Marshal(stored)
	if err != nil {
		return err
	}
	if err := k.write("onion-keys", b); err != nil {
		return err
	}
	k.all = next
	return nil
}

func (k *Keys) write(name string, b []byte) error { return WriteFile(k.path(name), b) }

// WriteFile replaces file so that a crash leaves the old or the new, for its
// owner only. It is on the disk when WriteFile returns.
func WriteFile(file string, b []byte) error {
	f, err := os.OpenFile(file+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err == nil {
		_, err = f.Write(b)
		err = errors.Join(err, f.Sync(), f.Close())
	}
	if err == nil {
		err = os.Rename(file+".new", file)
	}
	if err == nil {
		err = syncDir(filepath.Dir(file))
	}
	if err != nil {
		return fmt.Errorf("state folder: %w", err)
	}
	return nil
}

// Get returns the onion key with this number, or nil.
func (k *Keys) Get(number byte) *onion.PrivateKey {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, d := range k.all {
		if d.key.Public().Number() == number {
			return d.key
		}
	}
	return nil
}

// Current returns the key to publish. Rotate has been called.
func (k *Keys) Current() onion.PublicKey {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.all[len(k.all)-1].key.Public()
}

// LoadReplays fills s's memory with what SaveReplays wrote, and removes the
// file: as long as it is missing, this process has not ended well, and the
// onion keys are replaced. Call it last, when nothing else can fail.
func (k *Keys) LoadReplays(s *Server) error {
	b, err := os.ReadFile(k.path("replays"))
	if err == nil {
		err = s.Replays().Load(b)
	}
	if err != nil {
		if err := k.Replace(time.Now()); err != nil {
			return err
		}
	}
	if err := os.Remove(k.path("replays")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("state folder: %w", err)
	}
	return syncDir(k.dir)
}

// SaveReplays writes what s has seen, for the next start.
func (k *Keys) SaveReplays(s *Server) error { return k.write("replays", s.Replays().Append(nil)) }
