package setup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/shoal-p2p/shoal/proxy/proc"
)

// Instance is one client with its settings, running or not.
type Instance struct {
	Client  Client
	File    string        // its settings, "" when that is not known
	Process *proc.Process // nil when it does not run

	access Access
}

// Access is which client is meant and how to reach it, where that can't be found
// out. The zero value is right for most.
type Access struct {
	Config         string // its settings file
	PID            int    // its process
	URL            string // of qBittorrent's Web UI or Transmission's RPC, or HOST:PORT of Deluge's daemon
	User, Password string // for that
}

// Reached returns the instance with another way to reach it.
func (i Instance) Reached(a Access) Instance {
	i.access = a
	return i
}

// String returns what tells the instance from others of its client.
func (i Instance) String() string {
	var all []string
	if i.Process != nil {
		all = append(all, fmt.Sprintf("pid %d", i.Process.PID))
	}
	if i.File != "" {
		all = append(all, "settings in "+i.File)
	} else if i.access.URL != "" {
		all = append(all, i.access.URL)
	}
	if c, ok := i.Client.(configurable); ok && i.File != "" {
		if file, err := i.settings(); err == nil && file != nil {
			if p := c.profile(seen{file: file}); p.ControlPort != 0 {
				all = append(all, fmt.Sprintf("%s port %d", p.Control, p.ControlPort))
			}
		}
	}
	return strings.Join(all, ", ")
}

// Short returns the shortest text that tells the instance from others.
func (i Instance) Short() string {
	switch {
	case i.Process != nil:
		return fmt.Sprintf("pid %d", i.Process.PID)
	case i.File != "":
		return "not running, settings in " + i.File
	}
	return first(i.access.URL, "not running")
}

// Flag returns the flag that names the instance, for a user who has to choose.
func (i Instance) Flag() string {
	if i.Process != nil {
		return fmt.Sprintf("--pid %d", i.Process.PID)
	}
	return "--config " + i.File
}

// Running returns the clients that run here and are one of clients, or any of
// them when none is named.
func Running(clients ...Client) ([]Instance, error) {
	all, err := proc.List()
	if err != nil {
		return nil, err
	}
	var out []Instance
	programs := make(map[int]string) // of each in out, by its process
	for _, p := range all {
		c, program, args, ok := classify(p.Args)
		if !ok || len(clients) > 0 && !slices.Contains(clients, c) {
			continue
		}
		i := Instance{Client: c, File: fileOf(p, c, program, args), Process: &p}
		programs[p.PID] = program
		// A client's helper processes and its window share its settings.
		k := slices.IndexFunc(out, func(o Instance) bool {
			return o.Client == c && i.File != "" && sameFile(o.File, i.File)
		})
		if k < 0 {
			out = append(out, i)
		} else if names := c.programs(); slices.Index(names, program) < slices.Index(names, programs[out[k].Process.PID]) {
			out[k] = i
		}
	}
	return out, nil
}

// fileOf returns the settings file of a client that runs, "" when that can't be
// known: of other users' processes only the arguments can be seen.
func fileOf(p proc.Process, client Client, program string, args []string) string {
	c, ok := client.(configurable)
	if !ok {
		return ""
	}
	if !p.Mine() {
		file := c.file(program, args, p.Env, places{os: runtime.GOOS})
		if !filepath.IsAbs(file) {
			return ""
		}
		return file
	}
	return p.Path(c.file(program, args, p.Env, placesOf(p.Env)))
}

// SeveralError means that more than one instance could be meant.
type SeveralError struct {
	Client Client
	Of     []Instance
}

func (e *SeveralError) Error() string {
	verb := "run here"
	if e.Of[0].Process == nil {
		verb = "have settings here"
	}
	s := fmt.Sprintf("setup: %d %ss %s: choose one by its flag", len(e.Of), e.Client.Title(), verb)
	for _, i := range e.Of {
		s += fmt.Sprintf("\n  %s  (%v)", i.Flag(), i)
	}
	return s
}

// Find returns the one client that is meant: the one that a names, else the only
// one that runs, else the only one that has settings. Its error is a
// *SeveralError when there are more.
func Find(c Client, a Access) (Instance, error) {
	running, err := Running(c)
	if err != nil && a.URL == "" {
		return Instance{}, fmt.Errorf("setup: which programs run here: %w", err)
	}
	switch {
	case a.PID != 0:
		return byPID(c, a, running)
	case a.Config != "":
		return byFile(c, a, running)
	}
	mine := slices.DeleteFunc(slices.Clone(running), func(r Instance) bool { return !r.Process.Mine() })
	switch {
	case len(mine) == 1:
		return mine[0].Reached(a), nil
	case len(mine) > 1:
		return Instance{}, &SeveralError{c, mine}
	case a.URL != "":
		return Instance{Client: c, access: a}, nil
	}
	return stopped(c, a, len(running) > 0)
}

func byPID(c Client, a Access, running []Instance) (Instance, error) {
	for _, r := range running {
		if r.Process.PID == a.PID {
			return r.Reached(a), nil
		}
	}
	var others []string
	for _, r := range running {
		others = append(others, r.String())
	}
	if len(others) == 0 {
		return Instance{}, fmt.Errorf("setup: process %d is not %s, and none runs here", a.PID, c.Title())
	}
	return Instance{}, fmt.Errorf("setup: process %d is not %s; there is %s", a.PID, c.Title(), strings.Join(others, "; "))
}

func byFile(c Client, a Access, running []Instance) (Instance, error) {
	i := Instance{Client: c, File: a.Config, access: a}
	if _, err := os.Stat(i.File); err != nil {
		return i, fmt.Errorf("setup: %w", err)
	}
	for _, r := range running {
		// Only Linux tells which settings a program was started with.
		if sameFile(r.File, i.File) || runtime.GOOS != "linux" {
			i.Process = r.Process
		}
	}
	return i, nil
}

// stopped returns the only client that has settings here and does not run.
// strangers: other users' clients run.
func stopped(client Client, a Access, strangers bool) (Instance, error) {
	c, ok := client.(configurable)
	if !ok {
		return Instance{Client: client, access: a}, nil
	}
	own, service := c.candidates(placesOf(os.Getenv))
	found := existing(c, a, own)
	if len(found) == 0 {
		found = existing(c, a, service)
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		if strangers {
			return Instance{}, hint("Run this as that user, or as root.", "setup: %s runs as another user", c.Title())
		}
		return Instance{}, hint("Start it once, so that it writes its settings; or name its file with --config.", "setup: %s has no settings here", c.Title())
	}
	return Instance{}, &SeveralError{c, found}
}

// existing returns a client for each of the files that is there.
func existing(c Client, a Access, files []string) (found []Instance) {
	for _, file := range files {
		if _, err := os.Stat(file); err != nil {
			continue
		}
		if !slices.ContainsFunc(found, func(o Instance) bool { return sameFile(o.File, file) }) {
			found = append(found, Instance{Client: c, File: file, access: a})
		}
	}
	return found
}

// sameFile reports whether two names are of one file.
func sameFile(a, b string) bool {
	if a == b {
		return true
	}
	x, err := os.Stat(a)
	if err != nil {
		return false
	}
	y, err := os.Stat(b)
	return err == nil && os.SameFile(x, y)
}

// neighbour returns a file beside the client's settings, "" when there is none.
func (i Instance) neighbour(name string) string {
	if i.File == "" {
		return ""
	}
	b, err := readFile(filepath.Join(filepath.Dir(i.File), name))
	if err != nil {
		return ""
	}
	return string(b)
}

// settings returns what the client's file says; none when there is no file.
func (i Instance) settings() (settings, error) {
	c, ok := i.Client.(configurable)
	if !ok || i.File == "" {
		return nil, nil
	}
	b, err := readFile(i.File)
	if errors.Is(err, fs.ErrNotExist) && i.Process != nil {
		return nil, nil // it has never written any
	}
	if err != nil {
		return nil, fmt.Errorf("setup: %w", err)
	}
	return c.format().parse(b)
}
