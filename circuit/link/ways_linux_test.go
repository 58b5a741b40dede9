package link_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoal-p2p/shoal/circuit/cell"
	"github.com/shoal-p2p/shoal/circuit/hop"
	"github.com/shoal-p2p/shoal/circuit/link"
	"github.com/shoal-p2p/shoal/circuit/onion"
)

const (
	perWrite  = 16      // records, at most
	allCredit = 1 << 60 // more than will be sent
)

// place is a relay as the other side of the pipe hears of it.
type place struct {
	ID   []byte
	Addr netip.AddrPort
	Key  []byte // its onion key, number 1
	plan
}

// plan is one way that startRelay starts.
type plan struct {
	Role   role
	OnCore int  // of the cores that the process may use: where it is to stay
	Back   bool // whether it stands behind everybody else who wants the core
}

// role is what the ends of a way do, each time that they are told to.
type role int

const (
	flood role = iota // send back as much as goes, until told to stop
	ask               // send a cell and have one back, questions times
)

const (
	questions     = 200
	questionPause = 5 * time.Millisecond
)

// word is what the ends of a way say.
type word struct {
	place
	Cells int             // that came
	Trips []time.Duration // of questions
}

// ends is the process at both ends of a way.
type ends struct {
	in   *json.Encoder
	out  *json.Decoder
	said word
}

func (e *ends) say(tb testing.TB, v any) {
	tb.Helper()
	if err := e.in.Encode(v); err != nil {
		tb.Fatal(err)
	}
}

// hear waits for one word, which is in e.said then.
func (e *ends) hear(tb testing.TB) {
	tb.Helper()
	e.said = word{}
	if err := e.out.Decode(&e.said); err != nil {
		tb.Fatalf("the ends of a way are gone: %v", err)
	}
}

// endsEnv makes this test binary the ends of a way.
const endsEnv = "SHOAL_RELAY_ENDS"

func TestMain(m *testing.M) {
	if os.Getenv(endsEnv) == "" {
		os.Exit(m.Run())
	}
	if err := playEnds(json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)); err != nil && err != io.EOF {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func startEnds(b *testing.B) *ends {
	b.Helper()
	exe, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), endsEnv+"=1", "GOMAXPROCS=1")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		in.Close()
		cmd.Process.Kill()
		cmd.Wait()
	})
	e := &ends{in: json.NewEncoder(in), out: json.NewDecoder(out)}
	e.hear(b)
	return e
}

// startRelay starts a relay and ways through it.
func startRelay(b *testing.B, plans ...plan) (ways []*ends) {
	b.Helper()
	sinks := make(map[onion.ID]netip.AddrPort)
	for range plans {
		e := startEnds(b)
		sinks[onion.ID(e.said.ID)] = e.said.Addr
		ways = append(ways, e)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	b.Cleanup(wg.Wait)
	b.Cleanup(cancel)
	_, identity, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	key, err := onion.GenerateKey(1)
	if err != nil {
		b.Fatal(err)
	}
	pool := new(link.Pool)
	server, err := hop.New(hop.Config{
		Identity: identity,
		Key:      func(byte) *onion.PrivateKey { return key },
		Now:      time.Now,
		Links:    pool,
		Next: func(id onion.ID) (netip.AddrPort, bool) {
			addr, ok := sinks[id]
			return addr, ok
		},
	})
	if err != nil {
		b.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	wg.Go(func() { pool.Run(ctx) })
	wg.Go(func() { server.Serve(ctx, ln) })
	id := server.ID()
	for i, e := range ways {
		e.say(b, place{id[:], ln.Addr().(*net.TCPAddr).AddrPort(), key.Public().Bytes(), plans[i]})
	}
	for _, e := range ways {
		e.hear(b)
	}
	return ways
}

// playEnds is the other side of ends: says where its sink is, hears of the
// relay, opens its way, and then plays its role each time it is told to.
func playEnds(in *json.Decoder, out *json.Encoder) error {
	s, err := newSink()
	if err != nil {
		return err
	}
	if err := out.Encode(word{place: place{ID: s.id[:], Addr: s.ln.Addr().(*net.TCPAddr).AddrPort()}}); err != nil {
		return err
	}
	var relay place
	if err := in.Decode(&relay); err != nil {
		return err
	}
	if err := stay(relay.OnCore); err != nil {
		return err
	}
	if relay.Back {
		if err := yieldToAll(); err != nil {
			return err
		}
	}
	key, err := onion.ParsePublicKey(relay.Key, 1)
	if err != nil {
		return err
	}
	w, err := open(relay.Addr.String(), onion.Hop{ID: onion.ID(relay.ID), Key: key}, s)
	if err != nil {
		return err
	}
	told := func() error { return in.Decode(new(struct{})) }
	var play func(told func() error) (word, error)
	switch relay.Role {
	case flood:
		play = w.flood
		go w.listen(w.to)
		go w.count()
	case ask:
		play = w.ask
		go w.echo()
	}
	if err := out.Encode(word{}); err != nil { // it is ready
		return err
	}
	for {
		if err := told(); err != nil {
			return err
		}
		said, err := play(told)
		if err != nil {
			return err
		}
		if err := out.Encode(said); err != nil {
			return err
		}
	}
}

// stay keeps this process, all its threads, on the n-th of the cores it may use.
func stay(n int) error {
	var may, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &may); err != nil {
		return err
	}
	for core := 0; core < 1024; core++ {
		if !may.IsSet(core) {
			continue
		}
		if n == 0 || may.Count() == 1 {
			one.Set(core)
			break
		}
		n--
	}
	return eachThread(func(tid int) error { return unix.SchedSetaffinity(tid, &one) })
}

// yieldToAll has this process run only when nobody else wants the core (SCHED_IDLE).
func yieldToAll() error {
	return eachThread(func(tid int) error {
		return unix.SchedSetAttr(tid, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_IDLE}, 0)
	})
}

// eachThread does f to all threads of this process; those to come inherit it.
func eachThread(f func(tid int) error) error {
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return err
	}
	for _, t := range threads {
		var tid int
		if _, err := fmt.Sscan(t.Name(), &tid); err != nil {
			return err
		}
		if err := f(tid); err != nil && err != unix.ESRCH {
			return err
		}
	}
	return nil
}

// way is a sender, its circuit through the relay, and where that ends.
type way struct {
	layers *onion.Circuit
	from   link.Raw
	to     link.Raw
	last   cell.ID // of the circuit on the link to

	sent uint64 // cells
	came atomic.Int64

	mu     sync.Mutex
	credit uint64 // guarded by mu
	over   error  // guarded by mu
	more   sync.Cond
}

// sink is the last hop of a circuit.
type sink struct {
	id       onion.ID
	identity ed25519.PrivateKey
	key      *onion.PrivateKey
	ln       net.Listener
}

func newSink() (*sink, error) {
	pub, identity, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	key, err := onion.GenerateKey(1)
	if err != nil {
		return nil, err
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	return &sink{onion.ID(pub), identity, key, ln}, err
}

// answer takes the one link that is w's, and the CREATE on it, and allows all
// that will come.
func (s *sink) answer(w *way) error {
	conn, err := s.ln.Accept()
	if err != nil {
		return err
	}
	cert, err := link.Certificate(s.identity)
	if err != nil {
		return err
	}
	if w.to, err = link.AcceptRaw(context.Background(), conn, cert); err != nil {
		return err
	}
	create, err := w.to.Read()
	if err != nil {
		return err
	}
	h, n, err := cell.ParseHeader(create)
	if err != nil {
		return err
	}
	p, err := onion.Peel(create[cell.HeaderSize:cell.HeaderSize+n], s.id, s.key)
	if err != nil {
		return err
	}
	if _, err := p.Accept(0); err != nil {
		return err
	}
	w.last = h.Circuit
	b := cell.AppendFrame(nil, cell.Header{Circuit: h.Circuit, Command: cell.Created}, p.Created(nil))
	_, err = w.to.Write(w.to.Append(nil, cell.AppendCredit(b, h.Circuit, allCredit)))
	return err
}

// circuitID is the sender's only circuit.
const circuitID = 1

// open opens a circuit through the relay that ends at s.
func open(addr string, relay onion.Hop, s *sink) (*way, error) {
	answered := make(chan error, 1)
	w := &way{credit: link.Floor}
	w.more.L = &w.mu
	go func() { answered <- s.answer(w) }()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	if w.from, err = link.DialRaw(context.Background(), conn, relay.ID); err != nil {
		return nil, err
	}
	create, pending, err := onion.Wrap([]onion.Hop{relay, {ID: s.id, Key: s.key.Public()}}, onion.Step(time.Now()), nil)
	if err != nil {
		return nil, err
	}
	b := cell.AppendFrame(nil, cell.Header{Circuit: circuitID, Command: cell.Create}, create)
	if _, err := w.from.Write(w.from.Append(nil, b)); err != nil {
		return nil, err
	}
	var failed error
	err = hear(w.from, func(h cell.Header, body []byte) (done bool) {
		if h.Command == cell.Created {
			w.layers, failed = pending.Finish(body)
		}
		w.note(h, body)
		return w.layers != nil || failed != nil
	})
	if err = errors.Join(err, failed); err != nil {
		return nil, fmt.Errorf("no circuit: %w", err)
	}
	if err := <-answered; err != nil {
		return nil, err
	}
	_, err = w.from.Write(w.from.Append(nil, cell.AppendCredit(nil, circuitID, allCredit)))
	return w, err
}

// hear reads frames, of cells without their bodies, until told is done or the
// link is over.
func hear(l link.Raw, told func(h cell.Header, body []byte) (done bool)) error {
	for done := false; !done; {
		frames, err := l.Read()
		if err != nil {
			return err
		}
		for len(frames) > 0 {
			h, n, err := cell.ParseHeader(frames)
			if err != nil {
				return err
			}
			if h.Command == cell.Data || h.Command == cell.Padding {
				n = 0 // it lies outside
			}
			done = told(h, frames[cell.HeaderSize:cell.HeaderSize+n]) || done
			frames = frames[cell.HeaderSize+n:]
		}
	}
	return nil
}

// note takes in what a frame allows to be sent, if it is CREDIT.
func (w *way) note(h cell.Header, body []byte) {
	if h.Command != cell.Credit {
		return
	}
	total, err := cell.ParseCredit(body)
	w.mu.Lock()
	if err == nil {
		w.credit = total
	} else {
		w.over = err
	}
	w.mu.Unlock()
	w.more.Signal()
}

// listen hears of credit on l until the circuit or the link is over, and ends
// both ends then, so that nobody waits for more.
func (w *way) listen(l link.Raw) {
	err := hear(l, func(h cell.Header, body []byte) bool {
		w.note(h, body)
		return h.Command == cell.Destroy
	})
	w.mu.Lock()
	w.over = fmt.Errorf("the circuit is over: %v", err)
	w.mu.Unlock()
	w.more.Signal()
	w.from.Close()
	w.to.Close()
}

// may waits until a record may be sent, and returns how many may, up to most.
func (w *way) may(most int) (records int, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for w.credit < w.sent+link.RecordCells && w.over == nil {
		w.more.Wait()
	}
	return min(int((w.credit-w.sent)/link.RecordCells), most), w.over
}

// flood sends back from the last hop, which needs nothing sealed but records,
// until told to stop.
func (w *way) flood(told func() error) (word, error) {
	var stop atomic.Bool
	before := w.came.Load()
	done := make(chan error, 1)
	go func() {
		cells := framesOf(w.last)
		var b []byte
		for !stop.Load() {
			n, err := w.may(perWrite)
			if err != nil {
				done <- err
				return
			}
			b = b[:0]
			for range n {
				b = w.to.Append(b, nil, cells...)
			}
			if _, err := w.to.Write(b); err != nil {
				done <- err
				return
			}
			w.sent += uint64(n * link.RecordCells)
		}
		done <- nil
	}()
	err := told()
	stop.Store(true)
	if err := errors.Join(err, <-done); err != nil {
		return word{}, err
	}
	return word{Cells: int(w.came.Load() - before)}, nil
}

// count reads and counts the cells that come back.
func (w *way) count() {
	for {
		n, err := w.from.Skip()
		if err != nil {
			return
		}
		w.came.Add(int64(n))
	}
}

// ask sends questions and takes the time of each until its answer.
func (w *way) ask(func() error) (word, error) {
	f := framesOf(circuitID)[0]
	var all []time.Duration
	for range questions {
		time.Sleep(questionPause)
		began := time.Now()
		w.layers.Seal(f.Body())
		if _, err := w.from.Write(w.from.Append(nil, nil, f)); err != nil {
			return word{}, err
		}
		if err := hear(w.from, func(h cell.Header, _ []byte) bool { return h.Command == cell.Data }); err != nil {
			return word{}, err
		}
		all = append(all, time.Since(began))
	}
	return word{Trips: all}, nil
}

// echo has the last hop send a cell back for each that comes.
func (w *way) echo() {
	f := framesOf(w.last)[0]
	for {
		var failed error
		err := hear(w.to, func(h cell.Header, _ []byte) bool {
			if h.Command == cell.Data {
				_, failed = w.to.Write(w.to.Append(nil, nil, f))
			}
			return true
		})
		if err != nil || failed != nil {
			return
		}
	}
}

// framesOf returns the cells of a record.
func framesOf(id cell.ID) (all []*cell.Frame) {
	for range link.RecordCells {
		f := new(cell.Frame)
		cell.Header{Circuit: id, Command: cell.Data}.Put(f[:])
		all = append(all, f)
	}
	return all
}
