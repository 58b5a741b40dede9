package link

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/shoal-p2p/shoal/circuit/cell"
)

// turns is a scheduler whose circuits have names of one letter.
type turns struct {
	scheduler
	slots map[byte]*slot
	names map[*Circuit]byte
}

// newTurns makes circuits: "ab c" are a and b of one source, c of another.
// They have used up what they may send ahead.
func newTurns(circuits string) *turns {
	t := &turns{slots: make(map[byte]*slot), names: make(map[*Circuit]byte)}
	for i, group := range strings.Fields(circuits) {
		for _, name := range []byte(group) {
			c := new(Circuit)
			c.slot.circuit = c
			t.join(&c.slot, i)
			c.slot.bonus, c.slot.seen = 0, 1
			t.slots[name], t.names[c] = &c.slot, name
		}
	}
	t.own.Store(1)
	return t
}

// push queues a cell for each letter.
func (t *turns) push(cells string) {
	for _, name := range []byte(cells) {
		t.scheduler.push(t.slots[name], cell.NewFrame())
	}
}

// take sends n cells and returns whose they were.
func (t *turns) take(n int) string {
	var b strings.Builder
	for range n {
		f, c := t.next()
		if f == nil {
			b.WriteByte('.')
			continue
		}
		f.Free()
		b.WriteByte(t.names[c])
	}
	return b.String()
}

func many(name string, n int) string { return strings.Repeat(name, n) }

func TestCellsGoByTurns(t *testing.T) {
	for _, c := range []struct{ name, circuits, cells, want string }{
		{"one circuit", "a", "aaaaaa", "aaaaaa."},
		{"four cells a turn", "ab", many("a", 8) + many("b", 8), "aaaabbbbaaaabbbb."},
		{"whoever has less does not wait", "abc", many("a", 9) + "bbc", "aaaa" + "bbc" + "aaaaa."},
		{"a source has one turn, however many circuits", "ab c", many("a", 8) + many("b", 4) + many("c", 8), "aaaacccc" + "bbbbcccc" + "aaaa."},
		{"a turn that one circuit does not fill goes on with the next of its source", "ab c", "aabbbb" + many("c", 4), "aabbccccbb."},
		{"the turn ends with the last circuit of a source", "a b", "a" + many("b", 5) + "a", "aabbbbb."},
	} {
		s := newTurns(c.circuits)
		s.push(c.cells)
		if got := s.take(len(c.want)); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
		if !s.empty() {
			t.Errorf("%s: something is left", c.name)
		}
	}
}

func TestWhatGoesAheadIsAPartOfTheLink(t *testing.T) {
	s := newTurns("a b")
	s.push(many("a", 4000) + many("b", 4000))
	s.take(2000) // a time without any, which is not saved up without end
	ahead := 0
	for range 3000 {
		b := s.slots['b'] // as if there were always others
		b.bonus = sparseCells
		s.wait(b)
		s.hurry(b)
		before := s.bank
		s.take(1)
		if s.bank < before {
			ahead++
		}
	}
	if most := 3000/aheadShare + aheadBank; ahead > most || ahead < 3000/aheadShare/2 {
		t.Errorf("%d of 3000 cells went ahead, want up to %d", ahead, most)
	}
}

func TestANewCircuitGoesAheadOfBulkForAWhile(t *testing.T) {
	s := newTurns("abcdefgh x")
	s.push(many("abcdefgh", 1000))
	s.take(2000)
	s.slots['x'].bonus = sparseCells
	s.push("xxx")
	if got := s.take(3); got != "xxx" {
		t.Errorf("%s went first, want xxx", got)
	}
	s.push(many("x", 100))
	first := s.take(60)
	if n := strings.Count(first, "x"); n < sparseCells-3 {
		t.Errorf("%d of its next cells were among 60, want its bonus of %d", n, sparseCells-3)
	}
	second := s.take(60)
	if n := strings.Count(second, "x"); n < 25 || n > 35 {
		t.Errorf("without bonus %d of 60 cells are its, want the half that its source gets", n)
	}
}

// One that has at most a fifth of the cells goes ahead of bulk with each of
// them, for as long as it likes; one that has a third does not.
func TestACircuitThatUsesLittleGoesAheadEachTime(t *testing.T) {
	for others, most := range map[int]int{sparseEvery: 0, 2: 1 << 30} {
		s := newTurns("a x")
		s.push(many("a", 9000))
		s.take(1000)
		s.slots['x'].bonus = 0
		waited := 0
		for range 1000 {
			s.take(others)
			s.push("x")
			for s.take(1) != "x" {
				waited++
			}
		}
		if waited > most || most > 0 && waited == 0 {
			t.Errorf("one in %d: %d cells went before its own", others+1, waited)
		}
	}
}

func TestThoseAheadTakeTurnsAmongThemselves(t *testing.T) {
	s := newTurns("a xyz")
	s.push(many("a", 3000))
	s.take(2000)
	for _, name := range []byte("xyz") {
		s.slots[name].bonus = sparseCells
	}
	s.push("xxyyzz")
	if got := s.take(6); got != "xyzxyz" {
		t.Errorf("%s, want xyzxyz", got)
	}
}

func TestRingsHoldWhateverComesAndGoes(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		s := newTurns("abc def g")
		left := make(map[byte]int)
		for range 400 {
			name := "abcdefg"[rng.IntN(7)]
			switch rng.IntN(12) {
			case 0: // the circuit goes and another comes in its place
				c := s.slots[name]
				key := c.src.key
				s.leave(c)
				s.join(c, key)
				left[name] = 0
			case 1, 2, 3, 4, 5:
				n := 1 + rng.IntN(6)
				s.push(many(string(name), n))
				left[name] += n
			default:
				got := s.take(1)
				if got == "." {
					for name, n := range left {
						if n > 0 {
							t.Fatalf("nothing to send, but %c has %d cells", name, n)
						}
					}
					continue
				}
				if left[got[0]]--; left[got[0]] < 0 {
					t.Fatalf("%s sent more than it had", got)
				}
			}
			s.check(t)
		}
		for name := range left {
			s.leave(s.slots[name])
		}
	}
}

// check walks the rings.
func (t *turns) check(tb testing.TB) {
	tb.Helper()
	listed := make(map[*slot]bool)
	if src := t.ring; src != nil {
		for first := true; first || src != t.ring; first, src = false, src.next {
			if src.next.prev != src || src.slots == nil {
				tb.Fatal("the ring of sources is broken")
			}
			c := src.slots
			for first := true; first || c != src.slots; first, c = false, c.next {
				if c.next.prev != c || c.src != src || c.cells.Len() == 0 {
					tb.Fatal("a source's ring is broken")
				}
				listed[c] = true
			}
		}
	}
	ahead := 0
	if c := t.ahead; c != nil {
		for first := true; first || c != t.ahead; first, c = false, c.after {
			if c.after.before != c || !c.isAhead || !listed[c] || c.bonus == 0 {
				tb.Fatal("the list of those ahead is broken")
			}
			ahead++
		}
	}
	for name, c := range t.slots {
		if listed[c] != (c.cells.Len() > 0) {
			tb.Fatalf("%c has %d cells, listed %v", name, c.cells.Len(), listed[c])
		}
		if c.isAhead {
			ahead--
		}
	}
	if ahead != 0 {
		tb.Fatal("the list of those ahead misses some")
	}
}

func TestNoSourceIsLeftBehind(t *testing.T) {
	s := newTurns("ab c")
	s.push("abc")
	for _, c := range s.slots {
		s.leave(c)
		s.leave(c) // once more does nothing
	}
	if len(s.sources) != 0 || !s.empty() {
		t.Errorf("%d sources are left", len(s.sources))
	}
}

// crowd is a scheduler with n circuits of some sources, all with cells.
func crowd(n int) *scheduler {
	s := new(scheduler)
	for i := range n {
		c := new(Circuit)
		c.slot.circuit = c
		s.join(&c.slot, i%16)
		for range 2 {
			s.push(&c.slot, cell.NewFrame())
		}
	}
	return s
}

func TestSchedulingDoesNotAllocate(t *testing.T) {
	s := crowd(100)
	if n := testing.AllocsPerRun(1000, func() {
		f, c := s.next()
		s.push(&c.slot, f)
	}); n != 0 {
		t.Errorf("%v allocations for a cell", n)
	}
}

// A cell costs the same among 20,000 circuits as among ten.
func BenchmarkSchedule(b *testing.B) {
	for _, n := range []int{10, 20_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			s := crowd(n)
			b.ReportAllocs()
			for b.Loop() {
				f, c := s.next()
				s.push(&c.slot, f)
			}
		})
	}
}
