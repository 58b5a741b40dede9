package setup

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// maxFile bounds a file of settings, bytes; real ones have a few thousand.
const maxFile = 1 << 20

func readFile(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(b) > maxFile {
		err = fmt.Errorf("%s: more than %d bytes are no settings", name, maxFile)
	}
	return b, err
}

// parseFile reads a client's settings file.
func parseFile(c Client, b []byte) (settings, error) {
	if c != QBittorrent {
		return object(b).all()
	}
	s := make(settings)
	group := ""
	for l := range bytes.Lines(b) {
		l = bytes.TrimSpace(l)
		switch {
		case len(l) == 0 || l[0] == ';' || l[0] == '#':
		case l[0] == '[':
			group = string(bytes.Trim(l, "[]"))
		default:
			if k, v, ok := bytes.Cut(l, []byte("=")); ok {
				name := group + "/" + strings.ReplaceAll(string(bytes.TrimSpace(k)), `\`, "/")
				s[name] = iniValue(string(bytes.TrimSpace(v)))
			}
		}
	}
	return s, nil
}

// raw returns how a setting is written in a client's file.
func raw(c Client, b []byte, name string) (text string, ok bool) {
	if c == QBittorrent {
		return ini(b).get(name)
	}
	return object(b).get(name)
}

// write returns b with a setting written so; not ok: without it.
func write(c Client, b []byte, name, text string, ok bool) ([]byte, error) {
	switch {
	case c == QBittorrent && ok:
		return ini(b).set(name, text), nil
	case c == QBittorrent:
		return ini(b).unset(name), nil
	case ok:
		return object(b).set(name, text)
	}
	return object(b).unset(name)
}

// asText returns how a value is written in a client's file.
func asText(c Client, v json.RawMessage) (string, error) {
	if c == QBittorrent {
		return iniText(v)
	}
	return string(v), nil
}

var errMeanwhile = errors.New("setup: the client's settings have changed meanwhile: try again")

// replace puts new bytes in a file's place if it still holds the old ones: at
// once, with its mode and owner, behind a symbolic link if it is one.
func replace(file string, old, new []byte) error {
	file, err := filepath.EvalSymlinks(file)
	if err != nil {
		return err
	}
	info, err := os.Stat(file)
	if err != nil {
		return err
	}
	tmp, err := os.CreateTemp(filepath.Dir(file), ".shoal-*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	defer tmp.Close()
	if err := keepOwner(tmp, info); err != nil {
		return err
	}
	if err := tmp.Chmod(info.Mode().Perm()); err != nil {
		return err
	}
	if _, err := tmp.Write(new); err != nil {
		return err
	}
	if err := tmp.Sync(); err != nil {
		return err
	}
	if err := tmp.Close(); err != nil {
		return err
	}
	if now, err := readFile(file); err != nil || !bytes.Equal(now, old) {
		return errors.Join(errMeanwhile, err)
	}
	return os.Rename(tmp.Name(), file)
}
