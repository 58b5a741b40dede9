package torrent

import (
	"bytes"
	"crypto/sha1"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/anacrolix/torrent/bencode"
)

func TestATorrentDescribesItsPayload(t *testing.T) {
	tor, err := Noise("noise.bin", 2*pieceLength+1, "http://t.invalid/announce", "udp://t.invalid:6969")
	if err != nil {
		t.Fatal(err)
	}
	var m struct {
		Announce     string        `bencode:"announce"`
		AnnounceList [][]string    `bencode:"announce-list"`
		Info         bencode.Bytes `bencode:"info"`
	}
	if err := bencode.Unmarshal(tor.File, &m); err != nil {
		t.Fatal(err)
	}
	if Hash(sha1.Sum(m.Info)) != tor.Hash || !bytes.Equal(m.Info, tor.Info) {
		t.Errorf("the info dictionary's hash is %x, want %v", sha1.Sum(m.Info), tor.Hash)
	}
	var i info
	if err := bencode.Unmarshal(m.Info, &i); err != nil {
		t.Fatal(err)
	}
	last := sha1.Sum(tor.Data[2*pieceLength:])
	if i.Length != len(tor.Data) || len(i.Pieces) != 3*sha1.Size || !bytes.Equal(i.Pieces[2*sha1.Size:], last[:]) {
		t.Errorf("info = %d bytes in %d bytes of hashes", i.Length, len(i.Pieces))
	}
	if m.Announce != "http://t.invalid/announce" || len(m.AnnounceList) != 2 {
		t.Errorf("trackers = %q, %q", m.Announce, m.AnnounceList)
	}
	if want := "magnet:?xt=urn:btih:" + tor.Hash.String() + "&dn=noise.bin&tr=http%3A%2F%2Ft.invalid%2Fannounce&tr=udp%3A%2F%2Ft.invalid%3A6969"; tor.Magnet() != want {
		t.Errorf("Magnet() = %q, want %q", tor.Magnet(), want)
	}
}

func TestNoiseIsTheSameEveryTime(t *testing.T) {
	a, _ := Noise("a", 1000)
	b, _ := Noise("a", 1000)
	c, _ := Noise("c", 1000)
	if !bytes.Equal(a.Data, b.Data) || bytes.Equal(a.Data, c.Data) || a.Hash != b.Hash {
		t.Error("noise depends on something else than its name")
	}
}

func TestCheckSeesOneChangedByte(t *testing.T) {
	dir := t.TempDir()
	tor, err := Noise("a", 100000)
	if err != nil {
		t.Fatal(err)
	}
	if err := tor.Put(dir); err != nil {
		t.Fatal(err)
	}
	if err := tor.Check(dir); err != nil {
		t.Error(err)
	}
	changed := bytes.Clone(tor.Data)
	changed[77777]++
	os.WriteFile(filepath.Join(dir, tor.Name), changed, 0o644)
	if err := tor.Check(dir); err == nil || !strings.Contains(err.Error(), "SHA-256") {
		t.Errorf("Check of a changed file = %v", err)
	}
}
