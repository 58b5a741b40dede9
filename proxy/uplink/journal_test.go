package uplink

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"github.com/shoal-p2p/shoal/circuit/fault"
)

// logged returns a journal and what it has written since the last call.
func logged() (*journal, func() []string) {
	var b bytes.Buffer
	plain := func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey || a.Key == "after" {
			return slog.Attr{}
		}
		return a
	}
	j := newJournal(slog.New(slog.NewTextHandler(&b, &slog.HandlerOptions{ReplaceAttr: plain})))
	return j, func() []string {
		defer b.Reset()
		return strings.Split(strings.TrimSpace(b.String()), "\n")
	}
}

func hears(t *testing.T, said []string, want ...string) {
	t.Helper()
	if len(want) == 0 {
		want = []string{""}
	}
	if strings.Join(said, "\n") != strings.Join(want, "\n") {
		t.Errorf("the log says %q, want %q", said, want)
	}
}

func TestEachChangeOfStateIsLoggedOnce(t *testing.T) {
	j, said := logged()
	refused := fault.New(fault.Refused, "the guard refuses", "Wait.", nil)
	late := fault.New(fault.Timeout, "the guard is late", "", nil)
	j.ready(fault.New(fault.Starting, "starting", "", nil))
	hears(t, said())
	j.ready(refused)
	hears(t, said(), `level=WARN msg="not ready" why="The guard refuses." advice=Wait.`)
	for range 3 {
		j.ready(refused)
		j.ready(late)
	}
	hears(t, said(), `level=WARN msg="not ready" why="The guard is late."`)
	j.ready(nil)
	j.ready(nil)
	hears(t, said(), `level=INFO msg=ready`)
	j.ready(refused)
	hears(t, said(), `level=WARN msg="not ready" why="The guard refuses." advice=Wait.`)

	j.trackers(Tally{3, 2, 2})
	j.trackers(Tally{3, 3, 3})
	j.trackers(Tally{3, 3, 3})
	hears(t, said())
	j.trackers(Tally{3, 3, 2})
	j.trackers(Tally{3, 3, 2})
	j.trackers(Tally{3, 3, 3})
	hears(t, said(), `level=WARN msg="2 of 3 trackers answer"`, `level=INFO msg="3 of 3 trackers answer"`)
}
