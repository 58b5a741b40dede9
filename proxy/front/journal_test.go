package front

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-p2p/shoal/circuit/seldom"
	"github.com/shoal-p2p/shoal/proxy/status"
)

// memo is a log that several goroutines may write.
type memo struct {
	mu sync.Mutex
	b  bytes.Buffer // guarded by mu
}

func (m *memo) Write(b []byte) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.b.Write(b)
}

// take returns what was written since the last call.
func (m *memo) take() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	defer m.b.Reset()
	return m.b.String()
}

// logged returns a journal and what it has written since the last call.
func logged() (*journal, func() []string) {
	b := new(memo)
	plain := func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey || a.Key == "after" {
			return slog.Attr{}
		}
		return a
	}
	j := &journal{log: slog.New(slog.NewTextHandler(b, &slog.HandlerOptions{ReplaceAttr: plain}))}
	return j, func() []string {
		return strings.Split(strings.TrimSpace(b.take()), "\n")
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

func TestAClientIsLoggedWithoutItsName(t *testing.T) {
	j, said := logged()
	j.client("user anna")
	j.client(Confined)
	for _, line := range said() {
		if strings.Contains(line, "anna") {
			t.Errorf("%s names a user", line)
		}
	}
}

func TestRefusalsAreLoggedAtOnceAndThenSeldom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j, said := logged()
		ctx, cancel := context.WithCancel(t.Context())
		go j.often.Run(ctx)
		line := func(r status.Reason, n int) string {
			return fmt.Sprintf("level=INFO msg=refused what=%q times=%d", r.Text(), n)
		}
		for range 100 {
			j.refused(status.Web)
		}
		j.refused(status.Password)
		hears(t, said(), line(status.Web, 1), line(status.Password, 1))
		time.Sleep(seldom.Every + seldom.Every/5)
		synctest.Wait()
		hears(t, said(), line(status.Web, 99))
		time.Sleep(3 * seldom.Every)
		synctest.Wait()
		hears(t, said())
		j.refused(status.Web)
		hears(t, said(), line(status.Web, 1))

		for range 3 {
			j.failed(errors.New("disk full"))
		}
		j.failed(errors.New("other"))
		hears(t, said(), `level=ERROR msg="an announce or a connection failed" err="disk full" times=1`, `level=ERROR msg="an announce or a connection failed" err=other times=1`)
		cancel()
	})
}
