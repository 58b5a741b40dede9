package hop

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"github.com/shoal-p2p/shoal/circuit/onion"
	"github.com/shoal-p2p/shoal/circuit/state"
)

const (
	keyLife    = 24 * time.Hour // how long an onion key is the current one
	keyOverlap = 24 * time.Hour // and how long it then still opens CREATEs
)

// The files of Keys. All are of version 1.
var (
	identityFile = &state.Kind{
		Name: "identity", Version: 1, Limit: ed25519.SeedSize, Policy: state.Keep, What: "the identity of this relay or tracker",
		Lost: "it becomes a new one with another ID: network files and links that name the old ID lead to nobody",
	}
	onionFile = &state.Kind{
		Name: "onion-keys", Version: 1, Limit: 1 << 16, Policy: state.Erase, What: "the onion keys",
		Lost: "new ones are made, and no circuit is built through this relay or tracker until others have learned of them",
	}
	replaysFile = &state.Kind{
		Name: "replays", Version: 1, Limit: 1 << 30, Policy: state.Cache, What: "the record of served handshakes",
		Lost: "new onion keys are made",
	}
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
// missing in it. A damaged identity is an error and stays as it is; damaged
// onion keys are made anew.
func OpenKeys(dir string) (*Keys, error) {
	if err := state.MakeDir(dir); err != nil {
		return nil, err
	}
	k := &Keys{dir: dir}
	seed, found, err := loadSeed(dir)
	if err != nil {
		return nil, err
	}
	if !found {
		seed = make([]byte, ed25519.SeedSize)
		rand.Read(seed)
		if err := identityFile.Save(k.path("identity"), seed); err != nil {
			return nil, err
		}
	}
	k.Identity = ed25519.NewKeyFromSeed(seed)
	if _, err := onionFile.Load(k.path("onion-keys"), k.parse); err != nil {
		return nil, err
	}
	return k, nil
}

// loadSeed reads what the identity in dir is made from, if there is one.
func loadSeed(dir string) (seed []byte, found bool, err error) {
	found, err = identityFile.Load(filepath.Join(dir, "identity"), func(b []byte) error {
		if len(b) != ed25519.SeedSize {
			return fmt.Errorf("it holds %d bytes, want %d", len(b), ed25519.SeedSize)
		}
		seed = b
		return nil
	})
	return seed, found, err
}

// OpenID returns the identity of the relay or tracker in dir, which may run. It
// reads nothing else. If there is none it makes the keys, as OpenKeys does.
func OpenID(dir string) (id onion.ID, err error) {
	seed, found, err := loadSeed(dir)
	if err != nil {
		return id, err
	}
	if found {
		return onion.ID(ed25519.NewKeyFromSeed(seed).Public().(ed25519.PublicKey)), nil
	}
	locked, err := state.Lock(dir) // two processes must not both make one
	if err != nil {
		return id, err
	}
	defer locked.Close()
	k, err := OpenKeys(dir)
	if err != nil {
		return id, err
	}
	return k.ID(), nil
}

func (k *Keys) path(name string) string { return filepath.Join(k.dir, name) }

// maxKeys bounds the onion keys in a file; there are two or three.
const maxKeys = 8

func (k *Keys) parse(b []byte) error {
	var stored []storedKey
	if err := json.Unmarshal(b, &stored); err != nil {
		return err
	}
	if len(stored) > maxKeys {
		return fmt.Errorf("it holds %d keys, at most %d", len(stored), maxKeys)
	}
	var all []datedKey
	for _, s := range stored {
		key, err := onion.ParsePrivateKey(s.Secret, s.Number)
		if err != nil {
			return err
		}
		all = append(all, datedKey{key, s.From})
	}
	k.all = all
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
	if err := onionFile.Save(k.path("onion-keys"), b); err != nil {
		return err
	}
	k.all = next
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
	path := k.path("replays")
	found, err := replaysFile.Load(path, s.Replays().Load)
	if err != nil {
		return err
	}
	if !found {
		return k.Replace(time.Now())
	}
	return state.Remove(path)
}

// SaveReplays writes what s has seen, for the next start.
func (k *Keys) SaveReplays(s *Server) error {
	return replaysFile.Save(k.path("replays"), s.Replays().Append(nil))
}
