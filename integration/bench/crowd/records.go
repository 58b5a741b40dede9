package crowd

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"path/filepath"
	"time"

	"github.com/shoal-p2p/shoal/circuit/hop"
	"github.com/shoal-p2p/shoal/tracker/announce"
	"github.com/shoal-p2p/shoal/tracker/swarm"
)

// Records makes the state of a tracker that has been running for long: each of
// hashes is a swarm with so many members. dir is the tracker's state folder. What
// is in the records is noise: only members would look.
func Records(dir string, hashes [][20]byte, members int) error {
	keys, err := hop.OpenKeys(dir)
	if err != nil {
		return err
	}
	tracker := [32]byte(keys.Identity.Public().(ed25519.PublicKey))
	m := swarm.NewMemory(swarm.Limits{})
	now := time.Now()
	for _, h := range hashes {
		name := announce.Name(h, tracker, announce.Days(h, now)[0])
		for i := range members {
			o := &announce.Outer{Expiry: now.Add(2 * time.Hour).Unix(), Seeder: i%2 == 0}
			rand.Read(o.T[:])
			rand.Read(o.Box[:])
			rand.Read(o.Sig[:])
			if err := m.Put(context.Background(), name, o, now); err != nil {
				return fmt.Errorf("crowd: %w", err)
			}
		}
	}
	return m.Save(filepath.Join(dir, "swarms"))
}
