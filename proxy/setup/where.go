package setup

import (
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

// classify returns the client that a command line runs, and by which of its
// programs. Programs in Python, shell scripts and Java have an interpreter in
// front; Java's options may come between.
func classify(args []string) (c Client, program string, rest []string, ok bool) {
	depth := 1
	if len(args) > 0 {
		switch name := base(args[0]); {
		case name == "java":
			depth = len(args)
		case strings.HasPrefix(name, "python"), name == "sh", name == "bash":
			depth = min(2, len(args))
		}
	}
	for i, a := range args[:min(depth, len(args))] {
		for _, c := range registered {
			if slices.Contains(c.programs(), base(a)) {
				return c, base(a), append(slices.Clone(args[:i]), args[i+1:]...), true
			}
		}
	}
	return nil, "", nil, false
}

func base(file string) string { return path.Base(strings.ReplaceAll(file, `\`, "/")) }

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

// placesOf returns where a program with such an environment keeps settings; for
// what the environment doesn't say, this program's own counts.
func placesOf(env func(string) string) places {
	in := places{os: runtime.GOOS}
	in.home, _ = os.UserHomeDir()
	in.config, _ = os.UserConfigDir()
	in.local = os.Getenv("LOCALAPPDATA")
	if in.os == "darwin" {
		in.config = filepath.Join(in.home, ".config") // unlike the Mac's own programs
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

// flatpak returns a file in the folder of an application that is installed by
// Flatpak; none on systems other than Linux.
func (in places) flatpak(app string, file ...string) []string {
	if in.os != "linux" {
		return nil
	}
	return []string{filepath.Join(append([]string{in.home, ".var", "app", app, "config"}, file...)...)}
}
