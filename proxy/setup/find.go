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

// Access is how to reach a client where it does not say so itself. The zero
// value is right for most.
type Access struct {
	Config         string // its settings file
	URL            string // of qBittorrent's web page or Transmission's RPC, or HOST:PORT of Deluge's daemon
	User, Password string // for it
}

// Running returns the clients that run here and are one of clients, or any of
// them when none is named.
func Running(clients ...Client) ([]Instance, error) {
	all, err := proc.List()
	if err != nil {
		return nil, err
	}
	var out []Instance
	for _, p := range all {
		c, program, args, ok := classify(p.Args)
		if !ok || len(clients) > 0 && !slices.Contains(clients, c) {
			continue
		}
		i := Instance{Client: c, File: fileOf(p, c, program, args), Process: &p}
		// A client's helper processes and its window share its settings.
		if k := slices.IndexFunc(out, func(o Instance) bool { return o.Client == c && sameFile(o.File, i.File) }); k >= 0 {
			if program == "deluged" {
				out[k] = i
			}
			continue
		}
		out = append(out, i)
	}
	return out, nil
}

// fileOf returns the settings file of a client that runs, "" when that can't be
// known: of other users' processes only the arguments can be seen.
func fileOf(p proc.Process, c Client, program string, args []string) string {
	if !p.Mine() {
		file := configOf(c, program, args, p.Env, places{os: runtime.GOOS})
		if !filepath.IsAbs(file) {
			return ""
		}
		return file
	}
	return p.Path(configOf(c, program, args, p.Env, placesOf(p.Env)))
}

// Find returns the one client that is meant: the one with the settings that a
// names, else the only one that runs, else the only one that has settings.
func Find(c Client, a Access) (Instance, error) {
	running, err := Running(c)
	if err != nil && a.URL == "" {
		return Instance{}, fmt.Errorf("setup: which programs run here: %w", err)
	}
	if a.Config != "" {
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
	mine := slices.DeleteFunc(slices.Clone(running), func(r Instance) bool { return !r.Process.Mine() })
	switch {
	case len(mine) == 1:
		mine[0].access = a
		return mine[0], nil
	case len(mine) > 1:
		return Instance{}, several(c, "run", mine)
	case a.URL != "":
		return Instance{Client: c, access: a}, nil
	}
	own, service := candidates(c, placesOf(os.Getenv))
	found := existing(c, a, own)
	if len(found) == 0 {
		found = existing(c, a, service)
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return Instance{}, hint("Start it once, so that it writes its settings; or name its file with --config.", "setup: %s has no settings here", c.Title())
	}
	return Instance{}, several(c, "have settings here", found)
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

func several(c Client, what string, all []Instance) error {
	var files []string
	for _, i := range all {
		files = append(files, first(i.File, "a file that is not known"))
	}
	return hint("Say which one is meant: --config "+strings.Join(files, " or --config "), "setup: %d %ss %s", len(all), c.Title(), what)
}

// sameFile says if two names are of one file.
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

// placesOf returns where a program with such an environment keeps settings;
// what it doesn't say is as for this one.
func placesOf(env func(string) string) places {
	in := places{os: runtime.GOOS}
	in.home, _ = os.UserHomeDir()
	in.config, _ = os.UserConfigDir()
	in.local = os.Getenv("LOCALAPPDATA")
	if in.os == "darwin" {
		in.config = filepath.Join(in.home, ".config") // all three keep to it, unlike the Mac's own programs
	}
	if in.os != "linux" {
		return in
	}
	if home := env("HOME"); home != "" {
		in.home, in.config = home, filepath.Join(home, ".config")
	}
	if config := env("XDG_CONFIG_HOME"); config != "" {
		in.config = config
	}
	return in
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
	if i.File == "" {
		return nil, nil
	}
	b, err := readFile(i.File)
	if errors.Is(err, fs.ErrNotExist) && i.Process != nil {
		return nil, nil // it has never written any
	}
	if err != nil {
		return nil, fmt.Errorf("setup: %w", err)
	}
	return parseFile(i.Client, b)
}
