package swarm

import (
	"context"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/shoal-p2p/shoal/tracker/announce"
)

// What Redis holds, each name with the prefix in front:
//
//	r:NAME   hash: T to record, one per swarm
//	s:NAME   set: the T of those that seed
//	expiry   sorted set: NAME || T by the second its record ends
//	swarms   set: every NAME
//
// NAME and T are 32 raw bytes. Everything that changes more than one of these
// is a script, and so happens at once. Scripts reach keys that they compute,
// which a Redis Cluster does not allow: this is for one server and its replicas.

// putScript: KEYS expiry, swarms, r:NAME, s:NAME; ARGV NAME, T, record, expiry,
// seeder, most records, swarms, records in a swarm.
var putScript = redis.NewScript(`
local member = ARGV[1] .. ARGV[2]
local held = redis.call('ZSCORE', KEYS[1], member)
if held then
	if tonumber(held) > tonumber(ARGV[4]) then return 'stale' end
else
	if redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[6]) then return 'full' end
	local n = redis.call('HLEN', KEYS[3])
	if n >= tonumber(ARGV[8]) then return 'full' end
	if n == 0 then
		if redis.call('SCARD', KEYS[2]) >= tonumber(ARGV[7]) then return 'full' end
		redis.call('SADD', KEYS[2], ARGV[1])
	end
end
redis.call('HSET', KEYS[3], ARGV[2], ARGV[3])
redis.call('ZADD', KEYS[1], ARGV[4], member)
if ARGV[5] == '1' then redis.call('SADD', KEYS[4], ARGV[2]) else redis.call('SREM', KEYS[4], ARGV[2]) end
return 'ok'
`)

// removeScript takes out the members in ARGV from the third on, and from
// expired ones those that ended: KEYS expiry, swarms; ARGV prefix, then either
// ” and a member, or the time and how many at most.
var removeScript = redis.NewScript(`
local members
if ARGV[2] == '' then
	members = { ARGV[3] }
else
	members = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[2], 'LIMIT', 0, ARGV[3])
end
for _, member in ipairs(members) do
	local name, t = string.sub(member, 1, 32), string.sub(member, 33)
	redis.call('ZREM', KEYS[1], member)
	redis.call('HDEL', ARGV[1] .. 'r:' .. name, t)
	redis.call('SREM', ARGV[1] .. 's:' .. name, t)
	if redis.call('EXISTS', ARGV[1] .. 'r:' .. name) == 0 then redis.call('SREM', KEYS[2], name) end
end
return #members
`)

// expireAtOnce is how many records one script takes out: it blocks the server.
const expireAtOnce = 1000

// Redis is a Store on a Redis server, 6.2 or newer, that several processes may
// share. What it holds survives them as the server is set to.
type Redis struct {
	client redis.UniversalClient
	prefix string
	limits Limits
}

// NewRedis returns the store on the server that client talks to, which the
// caller closes. All its keys begin with prefix; two trackers on one server
// need two.
func NewRedis(client redis.UniversalClient, prefix string, l Limits) *Redis {
	return &Redis{client, prefix, l.withDefaults()}
}

// Put is Store's.
func (r *Redis) Put(ctx context.Context, name [32]byte, o *announce.Outer, _ time.Time) error {
	seeder := 0
	if o.Seeder {
		seeder = 1
	}
	keys := []string{r.prefix + "expiry", r.prefix + "swarms", r.records(name), r.seeders(name)}
	done, err := putScript.Run(ctx, r.client, keys, name[:], o.T[:], o.Append(nil), o.Expiry, seeder,
		r.limits.Records, r.limits.Swarms, r.limits.PerSwarm).Text()
	switch {
	case err != nil:
		return fmt.Errorf("swarm: redis: %w", err)
	case done == "full":
		return ErrFull
	case done == "stale":
		return ErrStale
	}
	return nil
}

// Remove is Store's.
func (r *Redis) Remove(ctx context.Context, name, t [32]byte) error {
	_, err := r.remove(ctx, "", string(name[:])+string(t[:]))
	return err
}

// Expire is Store's.
func (r *Redis) Expire(ctx context.Context, now time.Time) (int, error) {
	return r.remove(ctx, fmt.Sprint(now.Unix()), fmt.Sprint(expireAtOnce))
}

func (r *Redis) remove(ctx context.Context, until, what string) (int, error) {
	keys := []string{r.prefix + "expiry", r.prefix + "swarms"}
	n, err := removeScript.Run(ctx, r.client, keys, r.prefix, until, what).Int()
	if err != nil {
		return 0, fmt.Errorf("swarm: redis: %w", err)
	}
	return n, nil
}

// Get is Store's.
func (r *Redis) Get(ctx context.Context, b []byte, name [32]byte, n int, now time.Time) ([]byte, Counts, error) {
	var (
		some           *redis.KeyValueSliceCmd
		all, seeding   *redis.IntCmd
		records, seeds = r.records(name), r.seeders(name)
	)
	_, err := r.client.Pipelined(ctx, func(p redis.Pipeliner) error {
		all, seeding = p.HLen(ctx, records), p.SCard(ctx, seeds)
		if n > 0 {
			some = p.HRandFieldWithValues(ctx, records, n)
		}
		return nil
	})
	if err != nil {
		return b, Counts{}, fmt.Errorf("swarm: redis: %w", err)
	}
	counts := Counts{Seeders: int(seeding.Val()), Leechers: int(max(all.Val()-seeding.Val(), 0))}
	if some == nil {
		return b, counts, nil
	}
	got := b
	for _, pair := range some.Val() {
		o, err := announce.ParseOuter([]byte(pair.Value))
		if err != nil {
			return b, Counts{}, fmt.Errorf("swarm: redis holds what is no record: %w", err)
		}
		if !o.Expired(now) {
			got = append(got, pair.Value...)
		}
	}
	return got, counts, nil
}

func (r *Redis) records(name [32]byte) string { return r.prefix + "r:" + string(name[:]) }
func (r *Redis) seeders(name [32]byte) string { return r.prefix + "s:" + string(name[:]) }
