package setup

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"

	"github.com/shoal-p2p/shoal/circuit/state"
)

// record is what an Apply keeps for its undo.
type record struct {
	Client  string    `json:"client"`
	File    string    `json:"file"`
	API     bool      `json:"api"`     // the client was told while it ran; else its file was written
	Changes []Change  `json:"changes"` // in the words of whoever was told
	Lines   []written `json:"lines"`   // how the file had what was changed

	// Before is the whole file, and After the digest of what was written in
	// its place: while that is still there, an undo is exact to the byte.
	Before []byte `json:"before,omitempty"`
	After  string `json:"after,omitempty"`
}

var recordFile = &state.Kind{
	Name: "undo", Version: 1, Limit: 8 << 20, Policy: state.Keep, What: "the client's settings from before",
	Lost: "shoal setup --undo cannot bring them back",
}

// written is how one setting was written in the file.
type written struct {
	Name string `json:"name"`
	Text string `json:"text"`
	Set  bool   `json:"set"` // else it was not there
}

// keep adds a change, unless the setting was changed before: then what it was
// at first counts.
func (r *record) keep(c Change) {
	if i := slices.IndexFunc(r.Changes, func(o Change) bool { return o.Name == c.Name }); i >= 0 {
		r.Changes[i].New = c.New
		return
	}
	r.Changes = append(r.Changes, c)
}

func (r *record) keepLine(l written) {
	if !slices.ContainsFunc(r.Lines, func(o written) bool { return o.Name == l.Name }) {
		r.Lines = append(r.Lines, l)
	}
}

func digest(b []byte) string {
	d := sha256.Sum256(b)
	return hex.EncodeToString(d[:])
}

// store is the folder where records are: one for each client and settings file.
type store struct{ dir string }

func (s store) path(i Instance) string {
	of := i.File
	if of == "" {
		of = i.access.URL
	}
	if real, err := filepath.EvalSymlinks(of); err == nil {
		of = real
	}
	if abs, err := filepath.Abs(of); err == nil && i.File != "" {
		of = abs
	}
	return filepath.Join(s.dir, "setup", "undo-"+i.Client.Name()+"-"+digest([]byte(of))[:8]+".json")
}

// load returns the record, or an error that is fs.ErrNotExist.
func (s store) load(i Instance) (*record, error) {
	var r record
	found, err := recordFile.Load(s.path(i), func(b []byte) error {
		if err := json.Unmarshal(b, &r); err != nil {
			return err
		}
		if r.Client != i.Client.Name() {
			return fmt.Errorf("it is of the client %q", r.Client)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if !found {
		return nil, fs.ErrNotExist
	}
	for k, c := range r.Changes { // null is nothing
		if string(c.Old) == "null" {
			r.Changes[k].Old = nil
		}
		if string(c.New) == "null" {
			r.Changes[k].New = nil
		}
	}
	return &r, nil
}

// save writes the record, for this user only: it may hold passwords.
func (s store) save(i Instance, r *record) error {
	path := s.path(i)
	locked, err := state.Lock(filepath.Dir(path)) // another shoal setup may run
	if err != nil {
		return err
	}
	defer locked.Close()
	return recordFile.Save(path, value(r))
}

func (s store) remove(i Instance) error { return state.Remove(s.path(i)) }
