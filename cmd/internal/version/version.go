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

// Set by make build. All are empty in a program that plain go build made.
var (
	commit  string // hash
	date    string // of the commit, Unix seconds
	changes string // "+changes" if files differed from the commit
)

// commitLength is how much of a commit's hash is shown.
const commitLength = 12

// Full returns the version with commit and date, e.g.
// "0.1.0, commit 1a2b3c4d5e6f of 2026-12-01".
func Full() string {
	if info, ok := debug.ReadBuildInfo(); ok && commit == "" {
		return format(recorded(info))
	}
	var d time.Time
	if seconds, err := strconv.ParseInt(date, 10, 64); err == nil {
		d = time.Unix(seconds, 0)
	}
	return format(commit, d, changes)
}

// recorded returns what the go command knew when it built this program: nothing
// outside a checkout.
func recorded(info *debug.BuildInfo) (commit string, date time.Time, changes string) {
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			commit = s.Value
		case "vcs.time":
			date, _ = time.Parse(time.RFC3339, s.Value)
		case "vcs.modified":
			if s.Value == "true" {
				changes = "+changes"
			}
		}
	}
	return commit, date, changes
}

func format(commit string, date time.Time, changes string) string {
	if commit == "" {
		return Number + ", commit unknown"
	}
	s := Number + ", commit " + commit[:min(len(commit), commitLength)] + changes
	if !date.IsZero() {
		s += " of " + date.UTC().Format(time.DateOnly)
	}
	return s
}
