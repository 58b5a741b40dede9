package torrent

import "crypto/sha256"

// MakeV2 describes data as a v2 torrent (BEP 52), or as one of both kinds. data
// is some whole pieces, a power of two of them, and more than one.
func MakeV2(name string, data []byte, hybrid bool, trackers ...string) (Torrent, error) {
	const block = 16 << 10
	var layer []byte
	for at := 0; at < len(data); at += pieceLength {
		var leaves []byte
		for b := at; b < at+pieceLength; b += block {
			sum := sha256.Sum256(data[b : b+block])
			leaves = append(leaves, sum[:]...)
		}
		layer = append(layer, root(leaves)...)
	}
	top := root(layer)
	i := map[string]any{
		"file tree":    map[string]any{name: map[string]any{"": map[string]any{"length": len(data), "pieces root": top}}},
		"meta version": 2,
		"name":         name,
		"piece length": pieceLength,
	}
	if hybrid {
		old := v1(name, data)
		i["length"], i["pieces"] = old.Length, old.Pieces
	}
	return describe(i, map[string][]byte{string(top): layer}, Torrent{Name: name, Data: data, trackers: trackers})
}

// root returns the root of the Merkle tree over hashes, a power of two of them.
func root(hashes []byte) []byte {
	for len(hashes) > sha256.Size {
		var up []byte
		for ; len(hashes) > 0; hashes = hashes[2*sha256.Size:] {
			sum := sha256.Sum256(hashes[:2*sha256.Size])
			up = append(up, sum[:]...)
		}
		hashes = up
	}
	return hashes
}
