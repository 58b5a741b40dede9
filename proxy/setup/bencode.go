package setup

import (
	"encoding/json"
	"fmt"
	"strconv"
	"unicode/utf8"

	"github.com/anacrolix/torrent/bencode"
)

// bencodeFormat is a file that is one bencoded dictionary, whose keys are in
// order. Numbers and texts in it are settings; lists and dictionaries are left
// alone.
type bencodeFormat struct{}

// bencoded returns the members of the dictionary that a file is, as they are
// written.
func bencoded(file []byte) (all map[string]bencode.Bytes, err error) {
	if len(file) == 0 || file[0] != 'd' {
		return nil, fmt.Errorf("setup: no bencoded dictionary")
	}
	all = make(map[string]bencode.Bytes)
	if err := bencode.Unmarshal(file, &all); err != nil {
		return nil, fmt.Errorf("setup: %w", err)
	}
	return all, nil
}

func (f bencodeFormat) parse(file []byte) (settings, error) {
	all, err := bencoded(file)
	if err != nil {
		return nil, err
	}
	s := make(settings)
	for name, text := range all {
		if v := f.value(string(text)); v != nil {
			s[name] = v
		}
	}
	return s, nil
}

func (bencodeFormat) get(file []byte, name string) (string, bool) {
	all, err := bencoded(file)
	text, ok := all[name]
	return string(text), ok && err == nil
}

func (bencodeFormat) set(file []byte, name, text string) ([]byte, error) {
	all, err := bencoded(file)
	if err != nil {
		return nil, err
	}
	all[name] = bencode.Bytes(text)
	return bencode.Marshal(all)
}

func (bencodeFormat) unset(file []byte, name string) ([]byte, error) {
	all, err := bencoded(file)
	if err != nil {
		return nil, err
	}
	delete(all, name)
	return bencode.Marshal(all)
}

// text writes a text, a number, or a truth as 1 or 0.
func (bencodeFormat) text(v json.RawMessage) (string, error) {
	var text string
	if json.Unmarshal(v, &text) == nil {
		return fmt.Sprintf("%d:%s", len(text), text), nil
	}
	switch s := string(v); s {
	case "true":
		return "i1e", nil
	case "false":
		return "i0e", nil
	default:
		n, err := strconv.ParseInt(s, 10, 64)
		return fmt.Sprintf("i%de", n), err
	}
}

// value returns nil for what is neither a text nor a number.
func (bencodeFormat) value(text string) json.RawMessage {
	var number int64
	if bencode.Unmarshal([]byte(text), &number) == nil {
		return value(number)
	}
	var s string
	if bencode.Unmarshal([]byte(text), &s) == nil && utf8.ValidString(s) {
		return value(s)
	}
	return nil
}
