package status

import (
	"context"
	"sync"
	"time"
)

// The page's graph: two minutes, a point every two seconds.
const (
	sampleEvery = 2 * time.Second
	maxSamples  = 61 // one more than there are rates
	rateOver    = 3  // samples that "now" looks back
)

// sample is the byte counters at one time.
type sample struct {
	at      time.Time
	in, out uint64
}

// samples are the latest, oldest first.
type samples struct {
	mu   sync.Mutex
	list []sample // guarded by mu
}

func (s *Server) sample(ctx context.Context) {
	t := time.NewTicker(sampleEvery)
	defer t.Stop()
	for {
		st := s.source.Status()
		s.samples.add(sample{time.Now(), st.BytesIn, st.BytesOut})
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

func (s *samples) add(p sample) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.list) == maxSamples {
		copy(s.list, s.list[1:])
		s.list = s.list[:maxSamples-1]
	}
	s.list = append(s.list, p)
}

// rates returns bytes per second between each two samples, oldest first, and
// over the last few: what "now" means.
func (s *samples) rates() (in, out []float64, nowIn, nowOut float64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.list[:max(len(s.list)-1, 0)] {
		a, b := s.list[i], s.list[i+1]
		in = append(in, rate(a.in, b.in, b.at.Sub(a.at)))
		out = append(out, rate(a.out, b.out, b.at.Sub(a.at)))
	}
	if n := len(s.list); n > 1 {
		a, b := s.list[max(0, n-1-rateOver)], s.list[n-1]
		nowIn, nowOut = rate(a.in, b.in, b.at.Sub(a.at)), rate(a.out, b.out, b.at.Sub(a.at))
	}
	return in, out, nowIn, nowOut
}

func rate(from, to uint64, d time.Duration) float64 {
	if to < from || d <= 0 {
		return 0
	}
	return float64(to-from) / d.Seconds()
}
