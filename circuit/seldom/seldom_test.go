package seldom

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestTheFirstIsWrittenAtOnceAndTheRestSeldom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l Log
		ctx, cancel := context.WithCancel(t.Context())
		go l.Run(ctx)
		var mu sync.Mutex // Run writes, too
		var said []string
		note := func(name string, times int) {
			for range times {
				l.Note(name, func(n uint64) {
					mu.Lock()
					defer mu.Unlock()
					said = append(said, fmt.Sprint(name, " ", n))
				})
			}
		}
		hears := func(want ...string) {
			t.Helper()
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			if fmt.Sprint(said) != fmt.Sprint(want) {
				t.Errorf("written: %q, want %q", said, want)
			}
			said = nil
		}
		note("a", 100)
		note("b", 1)
		hears("a 1", "b 1")
		time.Sleep(Every + Every/5)
		hears("a 99")
		time.Sleep(3 * Every)
		hears()
		note("a", 2)
		hears("a 1")
		for i := range 10 * maxKinds {
			note(fmt.Sprint(i), 1)
		}
		if len(l.kinds) > maxKinds {
			t.Errorf("%d kinds are remembered", len(l.kinds))
		}
		cancel()
	})
}
