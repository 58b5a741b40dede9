package setup

import (
	"path"
	"path/filepath"
	"strings"
)

// programs are the names under which the clients run.
var programs = map[string]Client{
	"qbittorrent":         QBittorrent,
	"qbittorrent-nox":     QBittorrent,
	"deluged":             Deluge,
	"deluge":              Deluge,
	"deluge-gtk":          Deluge,
	"transmission-daemon": Transmission,
	"transmission-gtk":    Transmission,
	"transmission-qt":     Transmission,
	"Transmission":        Transmission, // macOS
}

// classify says which client a command line runs, if any, and by which program.
// Programs in Python and shell scripts have an interpreter in front.
func classify(args []string) (c Client, program string, rest []string, ok bool) {
	for i := range min(2, len(args)) {
		name := path.Base(strings.ReplaceAll(args[i], `\`, "/"))
		if c, ok := programs[name]; ok {
			return c, name, args[i+1:], true
		}
		if i == 0 && !strings.HasPrefix(name, "python") && name != "sh" && name != "bash" {
			return "", "", nil, false
		}
	}
	return "", "", nil, false
}

// option returns the value of a command line's option, as --long=VALUE,
// --long VALUE, -s VALUE or -sVALUE.
func option(args []string, long, short string) string {
	for i, a := range args {
		if a == "--" {
			break
		}
		if v, ok := strings.CutPrefix(a, long+"="); ok {
			return v
		}
		if (a == long || short != "" && a == short) && i+1 < len(args) {
			return args[i+1]
		}
		if v, ok := strings.CutPrefix(a, short); ok && short != "" && v != "" && !strings.HasPrefix(a, "--") {
			return v
		}
	}
	return ""
}

// first returns the first that is not empty.
func first(all ...string) string {
	for _, s := range all {
		if s != "" {
			return s
		}
	}
	return ""
}

// places are the folders in which an operating system keeps settings.
type places struct {
	os     string // as runtime.GOOS
	config string // of programs: XDG_CONFIG_HOME, or %APPDATA% on Windows
	local  string // %LOCALAPPDATA% on Windows
	home   string
}

// configOf returns the settings file of a client that runs as program with
// args. The name may be relative to its working folder.
func configOf(c Client, program string, args []string, env func(string) string, in places) string {
	switch c {
	case QBittorrent:
		name := "qBittorrent"
		if n := first(option(args, "--configuration", ""), env("QBT_CONFIGURATION_NAME")); n != "" {
			name += "_" + n
		}
		if dir := first(option(args, "--profile", ""), env("QBT_PROFILE")); dir != "" {
			return filepath.Join(dir, name, "config", in.qbFile())
		}
		return filepath.Join(in.config, name, in.qbFile())
	case Deluge:
		if dir := option(args, "--config", "-c"); dir != "" {
			return filepath.Join(dir, "core.conf")
		}
		return filepath.Join(in.config, "deluge", "core.conf")
	}
	if dir := first(option(args, "--config-dir", "-g"), env("TRANSMISSION_HOME")); dir != "" {
		return filepath.Join(dir, "settings.json")
	}
	if program == "transmission-daemon" {
		return filepath.Join(in.transmission(), "transmission-daemon", "settings.json")
	}
	return filepath.Join(in.transmission(), "transmission", "settings.json")
}

func (in places) qbFile() string {
	if in.os == "windows" || in.os == "darwin" {
		return "qBittorrent.ini"
	}
	return "qBittorrent.conf"
}

func (in places) transmission() string {
	if in.os == "windows" {
		return in.local
	}
	return in.config
}

// candidates returns where a client that does not run keeps its settings,
// unless its user told it otherwise: the user's own, and a service's.
func candidates(c Client, in places) (own, service []string) {
	linux := in.os == "linux"
	flatpak := filepath.Join(in.home, ".var", "app")
	switch c {
	case QBittorrent:
		own = []string{filepath.Join(in.config, "qBittorrent", in.qbFile())}
		if linux {
			own = append(own, filepath.Join(flatpak, "org.qbittorrent.qBittorrent/config/qBittorrent", in.qbFile()))
		}
	case Deluge:
		own = []string{filepath.Join(in.config, "deluge", "core.conf")}
		if linux {
			service = []string{"/var/lib/deluged/config/core.conf"}
		}
	case Transmission:
		own = []string{
			filepath.Join(in.transmission(), "transmission-daemon", "settings.json"),
			filepath.Join(in.transmission(), "transmission", "settings.json"),
		}
		if linux {
			own = append(own, filepath.Join(flatpak, "com.transmissionbt.Transmission/config/transmission/settings.json"))
			service = []string{"/etc/transmission-daemon/settings.json", "/var/lib/transmission-daemon/info/settings.json"}
		}
	}
	return own, service
}
