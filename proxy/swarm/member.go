package swarm

import (
	"context"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/shoal-p2p/shoal/circuit"
	"github.com/shoal-p2p/shoal/circuit/onion"
	"github.com/shoal-p2p/shoal/circuit/path"
	"github.com/shoal-p2p/shoal/circuit/stream"
	"github.com/shoal-p2p/shoal/tracker/announce"
)

const (
	recordLife  = 90 * time.Minute // how long a record is valid; renewed at the tracker's interval
	maxKnown    = 2048             // members remembered of one swarm
	maxArrived  = 64               // streams that wait for Accept
	forcedHour  = 30               // circuits an hour that others can make a membership build
	confirmWait = 15 * time.Second // for a visitor's first record
	circuitIdle = 2 * time.Minute  // an outbound or tracker circuit without streams
	leaveWait   = 3 * time.Second  // for withdrawals
	abandoned   = 2 * time.Hour    // without an announce or a stream: the client is gone
	maintain    = 15 * time.Second
)

// member implements Swarm.
type member struct {
	net   *Net
	id    memberID
	path  path.Key        // of its first keys: a new week's go on over the same middles
	ctx   context.Context // ends with the membership
	close context.CancelFunc
	over  chan struct{} // closed when run is over

	arrived chan arrival
	forced  *rate.Limiter
	counter atomic.Uint64

	kick chan struct{}  // wakes run
	work sync.WaitGroup // what spawn started; run waits for it

	mu       sync.Mutex
	who      identity // guarded by mu, like what follows
	union    *announce.Union
	started  bool      // the client has announced and not stopped
	asked    int       // publishes that a tracker answered since then
	seeder   bool      // the client lacks nothing, by its own word
	sure     bool      // and is to be believed, see othersLocked
	heard    time.Time // the client's last announce
	next     time.Time // when the record is to be renewed
	sequence uint64
	seeds    uint32
	leeches  uint32
	bound    map[onion.ID]*binding  // meeting relays
	lost     []onion.ID             // meeting relays that were lost last
	changed  chan struct{}          // closed and replaced when bound changes
	outbound map[onion.ID]*outbound // circuits to others' meeting relays
	asks     map[onion.ID]*ask      // circuits to trackers
	counters stream.Counters
	last     *publishing
	missed   missed
	again    bool // a start that finds nobody asks once more
	left     bool

	live    context.Context // of publishing: ends when the client has stopped
	unlive  context.CancelFunc
	places  int              // counts changes of where the member can be met
	failed  int              // publishes in a row that no tracker took
	stamps  map[onion.ID]int // bits that each tracker asked for
	carrier *carrier         // what can be passed on
	news    chan struct{}    // closed and replaced when there is more of it
}

type arrival struct {
	peer Key
	conn *stream.Conn
}

func newMember(n *Net, id memberID, secret *announce.Secret) *member {
	keys := secret.Member(id.hash)
	own := [][32]byte{keys.S()}
	if old, ok := secret.Previous(id.hash); ok {
		own = append(own, old.S())
	}
	ctx, cancel := context.WithCancel(n.ctx)
	m := &member{
		net: n, id: id, who: identity{secret: secret, keys: keys}, path: pathKey(keys), ctx: ctx, close: cancel, over: make(chan struct{}),
		arrived: make(chan arrival, maxArrived), forced: rate.NewLimiter(rate.Every(time.Hour/forcedHour), forcedHour),
		kick: make(chan struct{}, 1), union: announce.NewUnion(maxKnown, own...), heard: time.Now(),
		bound: make(map[onion.ID]*binding), changed: make(chan struct{}), outbound: make(map[onion.ID]*outbound),
		asks: make(map[onion.ID]*ask), stamps: make(map[onion.ID]int),
		carrier: newCarrier(own...), news: make(chan struct{}), missed: missed{more: make(chan struct{})},
	}
	m.live, m.unlive = context.WithCancel(ctx)
	m.counter.Store(uint64(time.Now().UnixNano()))
	return m
}

// Hash implements Swarm.
func (m *member) Hash() Hash { return m.id.hash }

// Self implements Swarm.
func (m *member) Self() Key { return m.keys().E() }

// Accept implements Swarm.
func (m *member) Accept(ctx context.Context) (Key, Conn, error) {
	select {
	case a := <-m.arrived:
		return a.peer, m.net.counted(a.conn), nil
	case <-ctx.Done():
		return Key{}, nil, ctx.Err()
	case <-m.ctx.Done():
		return Key{}, nil, ErrLeft
	}
}

// Leave implements Swarm.
func (m *member) Leave() <-chan struct{} {
	m.mu.Lock()
	first := !m.left
	m.left = true
	m.unlive()
	m.mu.Unlock()
	if first {
		m.net.wg.Go(func() {
			ctx, cancel := context.WithTimeout(m.ctx, leaveWait)
			defer cancel()
			m.withdraw(ctx, m.all()...)
			m.close()
		})
	}
	return m.over
}

// spawn runs f in a goroutine that run waits for, unless the member has left.
func (m *member) spawn(f func()) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.left {
		m.work.Go(f)
	}
	return !m.left
}

// run keeps what the membership needs until it ends. It begins when the one
// before it in the same swarm, if there was one, is over: both have the same
// keys, and a tracker could receive that one's withdrawal behind this one's record.
func (m *member) run(before *member) {
	defer close(m.over)
	defer m.net.forget(m)
	if before != nil {
		<-before.over
	}
	tick := time.NewTicker(maintain)
	defer tick.Stop()
	for {
		select {
		case <-m.ctx.Done():
			m.mu.Lock()
			m.left = true
			m.mu.Unlock()
			m.drop()
			m.work.Wait()
			m.drop() // what was being built
			return
		case <-tick.C:
		case <-m.kick:
		}
		if m.gone() {
			m.Leave()
			continue
		}
		m.turnWeek()
		if m.started0() {
			m.bind()
		}
		m.sweep()
		if m.due() {
			m.spawn(func() {
				ctx, cancel := context.WithTimeout(m.alive(), time.Minute)
				defer cancel()
				m.publish(ctx, announce.MaxRecords)
			})
		}
	}
}

func (m *member) wake() {
	select {
	case m.kick <- struct{}{}:
	default:
	}
}

func (m *member) started0() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.started && !m.left
}

func (m *member) leaving() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.left
}

func (m *member) lastSequence() uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.sequence
}

// gone reports whether the client seems to have left without a word.
func (m *member) gone() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return !m.left && time.Since(m.heard) > abandoned && m.quiet()
}

// quiet reports whether no stream is open. Caller holds mu.
func (m *member) quiet() bool {
	for _, b := range m.bound {
		if b.circuit != nil {
			if n, _ := b.circuit.Streams(); n > 0 {
				return false
			}
		}
	}
	for _, o := range m.outbound {
		if o.circuit != nil {
			if n, _ := o.circuit.Streams(); n > 0 {
				return false
			}
		}
	}
	return true
}

// alive returns the context of what is done for a client that has announced.
func (m *member) alive() context.Context {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.live
}

// due reports whether the record is to be renewed, once for each time that it is.
func (m *member) due() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.started || m.left || m.next.IsZero() || time.Now().Before(m.next) {
		return false
	}
	m.next = time.Now().Add(time.Minute) // unless publish says otherwise
	return true
}

// sweep closes circuits that nothing has used for a while, and forgets what is
// no longer true.
func (m *member) sweep() {
	m.mu.Lock()
	now := m.net.cfg.Now()
	m.union.Expire(now)
	m.carrier.expire(now)
	var idle []*circuit.Circuit
	for _, o := range m.outbound { // these stay: there are no more than relays
		if o.circuit != nil && (over(o.circuit) || unused(o.circuit)) {
			idle = append(idle, o.circuit)
			o.circuit = nil
		}
	}
	asks := slices.Collect(maps.Values(m.asks))
	m.mu.Unlock()
	for _, c := range idle {
		c.Close()
	}
	for _, a := range asks {
		a.sweep(unused)
	}
}

func unused(c *circuit.Circuit) bool {
	_, idle := c.Streams()
	return idle > circuitIdle
}

// drop closes every circuit, and with them every stream.
func (m *member) drop() {
	m.mu.Lock()
	var all []*circuit.Circuit
	for _, b := range m.bound {
		if b.circuit != nil {
			all = append(all, b.circuit)
		}
	}
	for _, o := range m.outbound {
		if o.circuit != nil {
			all = append(all, o.circuit)
		}
	}
	asks := slices.Collect(maps.Values(m.asks))
	m.mu.Unlock()
	for _, c := range all {
		c.Close()
	}
	for _, a := range asks {
		a.sweep(func(*circuit.Circuit) bool { return true })
	}
	for {
		select {
		case a := <-m.arrived:
			a.conn.Close()
		default:
			return
		}
	}
}

func over(c *circuit.Circuit) bool {
	select {
	case <-c.Done():
		return true
	default:
		return false
	}
}

// jitter returns d, a fifth more or less.
func jitter(d time.Duration) time.Duration {
	return time.Duration(float64(d) * (0.8 + 0.4*rand.Float64()))
}
