// Package torrent makes what a user would get from a web page: .torrent files
// and magnet links, of payloads that are the same in every run.
// Not here: clients that move them (package clients).
package torrent

import (
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/anacrolix/torrent/bencode"
)

// pieceLength is what most torrents of a few hundred megabytes have, bytes.
const pieceLength = 256 << 10

// Hash is a v1 info-hash. Its String is hexadecimal.
type Hash [sha1.Size]byte

func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// Torrent is one file and its description.
type Torrent struct {
	Name string // of the file, and of the torrent
	Data []byte // the file
	Hash Hash   // by which clients know it: the SHA-1 of Info, or the beginning of its SHA-256 when it has a v2 part
	File []byte // the .torrent
	Info []byte // its bencoded info dictionary

	trackers []string
}

// info is BEP 3's info dictionary of a single file.
type info struct {
	Length      int    `bencode:"length"`
	Name        string `bencode:"name"`
	PieceLength int    `bencode:"piece length"`
	Pieces      []byte `bencode:"pieces"`
	Private     bool   `bencode:"private,omitempty"`
}

// metainfo is a .torrent file.
type metainfo struct {
	Announce     string        `bencode:"announce,omitempty"`
	AnnounceList [][]string    `bencode:"announce-list,omitempty"` // BEP 12
	CreatedBy    string        `bencode:"created by"`
	Info         bencode.Bytes `bencode:"info"`

	PieceLayers map[string][]byte `bencode:"piece layers,omitempty"` // BEP 52
}

// Make describes data as a v1 torrent called name (BEP 3). Each tracker is a tier of its own.
func Make(name string, data []byte, trackers ...string) (Torrent, error) {
	return describe(v1(name, data), nil, Torrent{Name: name, Data: data, trackers: trackers})
}

// MakePrivate is Make for a private torrent (BEP 27).
func MakePrivate(name string, data []byte, trackers ...string) (Torrent, error) {
	i := v1(name, data)
	i.Private = true
	return describe(i, nil, Torrent{Name: name, Data: data, trackers: trackers})
}

func v1(name string, data []byte) info {
	pieces := make([]byte, 0, (len(data)/pieceLength+1)*sha1.Size)
	for rest := data; len(rest) > 0; {
		n := min(len(rest), pieceLength)
		sum := sha1.Sum(rest[:n])
		pieces = append(pieces, sum[:]...)
		rest = rest[n:]
	}
	return info{Length: len(data), Name: name, PieceLength: pieceLength, Pieces: pieces}
}

// describe completes t, whose info dictionary is i.
func describe(i any, layers map[string][]byte, t Torrent) (Torrent, error) {
	var err error
	if t.Info, err = bencode.Marshal(i); err != nil {
		return Torrent{}, err
	}
	m := metainfo{CreatedBy: "shoal test", Info: t.Info, PieceLayers: layers}
	for i, tracker := range t.trackers {
		if i == 0 {
			m.Announce = tracker
		}
		m.AnnounceList = append(m.AnnounceList, []string{tracker})
	}
	if t.File, err = bencode.Marshal(m); err != nil {
		return Torrent{}, err
	}
	t.Hash = sha1.Sum(t.Info)
	if layers != nil {
		sum := sha256.Sum256(t.Info)
		t.Hash = Hash(sum[:sha1.Size])
	}
	return t, nil
}

// Noise makes a torrent of size bytes of noise, which name alone decides.
func Noise(name string, size int, trackers ...string) (Torrent, error) {
	data := make([]byte, size)
	rand.NewChaCha8(sha256.Sum256([]byte(name))).Read(data)
	return Make(name, data, trackers...)
}

// Magnet returns the magnet link (BEP 9) with t's trackers.
func (t Torrent) Magnet() string {
	var b strings.Builder
	fmt.Fprintf(&b, "magnet:?xt=urn:btih:%v&dn=%s", t.Hash, url.QueryEscape(t.Name))
	for _, tracker := range t.trackers {
		b.WriteString("&tr=" + url.QueryEscape(tracker))
	}
	return b.String()
}

// Put writes the payload into dir, as someone has it who seeds.
func (t Torrent) Put(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, t.Name), t.Data, 0o644)
}

// Check compares the file in dir with the payload, by SHA-256.
func (t Torrent) Check(dir string) error {
	got, err := os.ReadFile(filepath.Join(dir, t.Name))
	if err != nil {
		return err
	}
	if g, w := sha256.Sum256(got), sha256.Sum256(t.Data); g != w {
		return fmt.Errorf("torrent: %d bytes arrived with SHA-256 %x, want %d with %x", len(got), g, len(t.Data), w)
	}
	return nil
}
