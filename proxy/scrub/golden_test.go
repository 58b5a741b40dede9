package scrub

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shoal-p2p/shoal/proxy/swarm"
)

var update = flag.Bool("update", false, "write what comes out into testdata")

// transcript is one side of a recorded peer connection, and what the other
// side may see of it.
type transcript struct {
	file, title string
	hash        swarm.Hash
	sent, seen  []byte
}

// transcripts reads all of testdata.
func transcripts(t testing.TB) []transcript {
	t.Helper()
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no transcripts: %v", err)
	}
	var all []transcript
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		x := transcript{file: file}
		parts := make(map[string][]byte)
		var part string
		for line := range strings.Lines(string(b)) {
			if part == "" && strings.HasPrefix(line, "#") {
				x.title += line
			}
			line, _, _ = strings.Cut(line, "#")
			if name, rest, ok := strings.Cut(line, ":"); ok {
				part, line = name, rest
			}
			line = strings.Join(strings.Fields(line), "")
			bytes, err := hex.DecodeString(line)
			if err != nil {
				t.Fatalf("%s: %v", file, err)
			}
			parts[part] = append(parts[part], bytes...)
		}
		copy(x.hash[:], parts["hash"])
		x.sent, x.seen = parts["sent"], parts["seen"]
		all = append(all, x)
	}
	return all
}

// goldenKey is the swarm key of whoever sends.
var goldenKey = [32]byte{1}

// run returns what the other side sees of x when it takes ut_metadata as 3.
func (x transcript) run(t testing.TB, feed func(*Scrubber, []byte) ([]byte, error)) []byte {
	t.Helper()
	out, in := NewPair(Config{Hash: x.hash, Self: PeerID(goldenKey), Peer: PeerID([32]byte{2})})
	if _, err := in.Feed(append(hello(x.hash, allReserved, ID{}), extendedMessage(0, "d1:md11:ut_metadatai3eee")...)); err != nil {
		t.Fatal(err)
	}
	got, err := feed(out, x.sent)
	if err != nil {
		t.Fatalf("%s: %v", x.file, err)
	}
	return got
}

func (x transcript) write(t *testing.T) {
	t.Helper()
	text := fmt.Sprintf("%s\nhash: %x\n\nsent:\n%s\nseen:\n%s", x.title, x.hash[:], explain(x.sent), explain(x.seen))
	if err := os.WriteFile(x.file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// explain writes bytes as hex with a comment on each message.
func explain(b []byte) string {
	var w strings.Builder
	part := func(name string, b []byte) {
		fmt.Fprintf(&w, "# %s\n", name)
		for len(b) > 0 {
			n := min(len(b), 24)
			text := bytes.Map(func(r rune) rune {
				if r < ' ' || r > '~' {
					return '.'
				}
				return r
			}, latin1(b[:n]))
			fmt.Fprintf(&w, "%-48x  # %s\n", b[:n], text)
			b = b[n:]
		}
	}
	part("handshake", b[:reservedAt])
	part("reserved bits", b[reservedAt:hashAt])
	part("info-hash", b[hashAt:idAt])
	part("peer id", b[idAt:helloSize])
	for b = b[helloSize:]; len(b) > 0; {
		n := 4 + int(binary.BigEndian.Uint32(b))
		part(messageName(b[:n]), b[:n])
		b = b[n:]
	}
	return w.String()
}

func latin1(b []byte) []byte {
	r := make([]rune, len(b))
	for i, c := range b {
		r[i] = rune(c)
	}
	return []byte(string(r))
}

func messageName(m []byte) string {
	names := []string{"choke", "unchoke", "interested", "not interested", "have", "bitfield", "request", "piece", "cancel", "PORT",
		13: "suggest", 14: "have all", 15: "have none", 16: "reject", 17: "allowed fast", 20: "extended", 21: "hash request", 22: "hashes", 23: "hash reject"}
	switch {
	case len(m) == 4:
		return "keep-alive"
	case m[4] == msgExtended && len(m) > 5 && m[5] == 0:
		return "extended handshake"
	case m[4] == msgExtended && len(m) > 5:
		return fmt.Sprintf("extended message %d", m[5])
	case int(m[4]) < len(names) && names[m[4]] != "":
		return names[m[4]]
	}
	return fmt.Sprintf("message %d", m[4])
}

func feedAll(s *Scrubber, b []byte) ([]byte, error) {
	got, err := s.Feed(b)
	return bytes.Clone(got), err
}

func TestGoldenTranscriptsOfRealClients(t *testing.T) {
	for _, x := range transcripts(t) {
		got := x.run(t, feedAll)
		if *update {
			x.seen = got
			x.write(t)
		} else if !bytes.Equal(got, x.seen) {
			t.Errorf("%s: the far side sees\n%swant\n%s", x.file, explain(got), explain(x.seen))
		}
	}
}

func TestNothingInTheTranscriptsNamesTheClient(t *testing.T) {
	for _, x := range transcripts(t) {
		seen := string(x.run(t, feedAll))
		for _, word := range []string{
			"qB", "-TR", "-lt", "A2-", "BitTorrent/", "Bittorrent", "ransmission", "libTorrent", "aria2", // programs
			"yourip", "ipv4", "ipv6", "1:p", "1:v", "complete_ago", "ut_pex", "ut_holepunch", "lt_donthave", "share_mode", // keys
			"\x52\x09", "21001", "\x52\x0a", "21002", // ports
			"\x7f\x00\x00\x01", "\xc6\x12\x00\x01", "\xc6\x12\x00\x02", // addresses
		} {
			if strings.Contains(seen, word) {
				t.Errorf("%s: the far side sees %q", x.file, word)
			}
		}
		if id := string(x.sent[idAt:helloSize]); strings.Contains(seen, id) || strings.Contains(seen, id[8:]) {
			t.Errorf("%s: the far side sees the client's own peer id", x.file)
		}
	}
}

func TestHandshakesOfAllClientsLookAlike(t *testing.T) {
	var first []byte
	var from string
	for _, x := range transcripts(t) {
		// All of them know the torrent but the one with a magnet link; some
		// can't speak fast, which changes what is spoken.
		if strings.Contains(x.file, "magnet") {
			continue
		}
		seen := x.run(t, feedAll)
		copy(seen[hashAt:], make([]byte, 20))
		seen[reservedAt+7] &^= reserved[7]
		end := helloSize + 4 + int(binary.BigEndian.Uint32(seen[helloSize:]))
		seen = seen[:end]
		for _, what := range []string{"metadata_sizei", "upload_onlyi"} { // facts about the torrent
			at := bytes.Index(seen, []byte(what)) + len(what)
			seen = append(seen[:at], seen[at+bytes.IndexByte(seen[at:], 'e'):]...)
		}
		seen = append(seen[:helloSize], seen[helloSize+4:]...) // the length
		if first == nil {
			first, from = seen, x.file
		} else if !bytes.Equal(seen, first) {
			t.Errorf("%s shows %q, %s %q", x.file, seen, from, first)
		}
	}
}
