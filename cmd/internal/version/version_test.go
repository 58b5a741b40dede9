package version

import (
	"runtime/debug"
	"testing"
)

func TestVersionNamesTheCommitThatGoRecorded(t *testing.T) {
	const hash = "1a2b3c4d5e6f70819203a4b5c6d7e8f901234567"
	for _, c := range []struct {
		settings []debug.BuildSetting
		want     string
	}{
		{nil, Number + ", commit unknown"},
		{[]debug.BuildSetting{{Key: "vcs.revision", Value: hash}}, Number + ", commit 1a2b3c4d5e6f"},
		{[]debug.BuildSetting{{Key: "vcs.revision", Value: hash}, {Key: "vcs.time", Value: "2026-12-01T23:30:00Z"}, {Key: "vcs.modified", Value: "false"}},
			Number + ", commit 1a2b3c4d5e6f of 2026-12-01"},
		{[]debug.BuildSetting{{Key: "vcs.revision", Value: hash}, {Key: "vcs.time", Value: "2026-12-01T23:30:00-02:00"}, {Key: "vcs.modified", Value: "true"}},
			Number + ", commit 1a2b3c4d5e6f+changes of 2026-12-02"},
	} {
		if got := format(recorded(&debug.BuildInfo{Settings: c.settings})); got != c.want {
			t.Errorf("version = %q, want %q", got, c.want)
		}
	}
}

func TestVersionNamesTheCommitThatWasStamped(t *testing.T) {
	defer func(c, d, e string) { commit, date, changes = c, d, e }(commit, date, changes)
	commit, date, changes = "1a2b3c4d5e6f70819203a4b5c6d7e8f901234567", "1796169600", "+changes"
	if got, want := Full(), Number+", commit 1a2b3c4d5e6f+changes of 2026-12-02"; got != want {
		t.Errorf("Full() = %q, want %q", got, want)
	}
}
