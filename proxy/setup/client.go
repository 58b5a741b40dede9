package setup

import (
	"cmp"
	"context"
	"encoding/json"
	"slices"
	"strings"
)

// Client is one kind of torrent client. Everything that differs between clients
// is behind it, and each client is one file of this package.
type Client interface {
	// Name is the client in commands, Title what its users call it.
	Name() string
	Title() string

	// NoSOCKS says why the client is not safe behind the sidecar's SOCKS proxy,
	// but under shoal run alone; "" when it is.
	NoSOCKS() string

	// Start says what it does past any proxy each time it starts, whatever is set;
	// "" for nothing.
	Start() string

	// Command is how to start it under shoal run, where nothing better is known.
	Command() string

	// Remedy returns the setting, in the client's own words, that ends a finding
	// of package doctor; "" when there is none.
	Remedy(finding string) string

	// programs are the names under which it runs. Of several processes with the
	// same settings the one that comes first here stands for all.
	programs() []string
}

// configurable is a Client with settings that Shoal reads and changes. For one
// without, shoal run is all it needs.
type configurable interface {
	Client

	// file returns the settings file of a process. The name may be relative to
	// the process's working folder.
	file(program string, args []string, env func(string) string, in places) string

	// candidates returns where a client that does not run keeps its settings by
	// default: the user's own, and those of a system service.
	candidates(in places) (own, service []string)

	// format is how the file is written.
	format() format

	// address returns where the client can be changed while it runs, as a URL or
	// HOST:PORT; "" when it can't.
	address(i Instance, file settings) string

	// open returns the interface at such an address.
	open(at string, i Instance) (api, error)

	// changes returns what has to change for w, under the API's names when the
	// API was read, and else under the file's.
	changes(s seen, w Want) []Change

	// fileNames returns the names that a changed setting has in the file.
	fileNames(name string, file settings) []string

	// profile returns what the settings mean. What is not set has the client's
	// default.
	profile(s seen) Profile

	// notes returns what the user should know before the changes are made, one
	// sentence each.
	notes(s seen, w Want) []string
}

// api is the way to the settings of a client that runs.
type api interface {
	read(context.Context) (settings, error)
	write(context.Context, []Change) error
}

// format is how settings are written in a file. Changing one leaves every byte
// alone that is not its own.
type format interface {
	parse(file []byte) (settings, error)
	get(file []byte, name string) (text string, ok bool)
	set(file []byte, name, text string) ([]byte, error)
	unset(file []byte, name string) ([]byte, error)

	// text returns how a value is written, value reads that.
	text(v json.RawMessage) (string, error)
	value(text string) json.RawMessage
}

// seen is what is known of a client's settings: what it said itself, and what
// its file says. Either may be nil.
type seen struct{ api, file settings }

// now returns the settings that hold.
func (s seen) now() settings {
	if s.api != nil {
		return s.api
	}
	return s.file
}

var registered []Client

// register adds a client to those that are known.
func register(c Client) Client {
	registered = append(registered, c)
	return c
}

// Clients returns all clients that are known, by name.
func Clients() []Client {
	return slices.SortedFunc(slices.Values(registered), func(a, b Client) int { return cmp.Compare(a.Name(), b.Name()) })
}

// ByName returns the client of that name.
func ByName(name string) (c Client, ok bool) {
	for _, c := range registered {
		if c.Name() == strings.ToLower(name) {
			return c, true
		}
	}
	return nil, false
}
