// Package version is the version of the programs, and which commit they were
// built from.
// Not here: the versions of the wire formats, which stand with each format.
package version

import (
	"runtime/debug"
	"strconv"
	"time"
)

// Number is the version of this source.
const Number = "0.1.0"

// Set by make build. Both are empty in a program that plain go build made.
var (
	commit string // abbreviated hash, with "+changes" if files differed from it
	date   string // of the commit, Unix seconds
)

// commitLength is how much of a commit's hash is shown.
const commitLength = 12

// Full returns the version with commit and date, e.g.
// "0.1.0, commit 1a2b3c4d5e6f of 2026-12-01".
func Full() string {
	c, d := commit, time.Time{}
	if seconds, err := strconv.ParseInt(date, 10, 64); err == nil {
		d = time.Unix(seconds, 0)
	}
	if info, ok := debug.ReadBuildInfo(); ok && c == "" {
		c, d = recorded(info)
	}
	return format(c, d)
}

// recorded returns what the go command knew when it built this program: nothing
// outside a checkout.
func recorded(info *debug.BuildInfo) (commit string, date time.Time) {
	changed := false
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			commit = s.Value[:min(len(s.Value), commitLength)]
		case "vcs.time":
			date, _ = time.Parse(time.RFC3339, s.Value)
		case "vcs.modified":
			changed = s.Value == "true"
		}
	}
	if commit != "" && changed {
		commit += "+changes"
	}
	return commit, date
}

func format(commit string, date time.Time) string {
	switch {
	case commit == "":
		return Number + ", commit unknown"
	case date.IsZero():
		return Number + ", commit " + commit
	}
	return Number + ", commit " + commit + " of " + date.UTC().Format(time.DateOnly)
}
