package swarm_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/shoal-p2p/shoal/tracker/swarm"
	"github.com/shoal-p2p/shoal/tracker/swarm/swarmtest"
)

func TestRedisKeepsTheContractOfAStore(t *testing.T) {
	client := startRedis(t)
	stores := 0
	swarmtest.TestStore(t, func(t *testing.T, l swarm.Limits) swarm.Store {
		stores++
		return swarm.NewRedis(client, fmt.Sprintf("test%d:", stores), l)
	})
}

func TestRedisHoldsNothingOnceAllHasEnded(t *testing.T) {
	client := startRedis(t)
	s := swarm.NewRedis(client, "shoal:", swarm.Limits{})
	for n := range 100 {
		if err := s.Put(ctx, swarmtest.Name(n%9), swarmtest.Outer(n, n%2 == 0), swarmtest.Now); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Expire(ctx, swarmtest.Now.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if n, err := client.DBSize(ctx).Result(); err != nil || n != 0 {
		t.Errorf("%d keys left, %v", n, err)
	}
}

func TestRedisThatIsGoneIsAnError(t *testing.T) {
	client := redis.NewClient(&redis.Options{Network: "unix", Addr: filepath.Join(t.TempDir(), "nobody"), MaxRetries: -1})
	defer client.Close()
	s := swarm.NewRedis(client, "shoal:", swarm.Limits{})
	err := s.Put(ctx, swarmtest.Name(1), swarmtest.Outer(1, true), swarmtest.Now)
	if err == nil || errors.Is(err, swarm.ErrFull) {
		t.Errorf("Put = %v", err)
	}
	if _, _, err := s.Get(ctx, nil, swarmtest.Name(1), 5, swarmtest.Now); err == nil {
		t.Error("Get without a server")
	}
}

// startRedis starts a real server that listens on a Unix socket of its own and
// on nothing else, and stops it when the test is over.
func startRedis(t *testing.T) *redis.Client {
	t.Helper()
	program := findRedis(t)
	dir, err := os.MkdirTemp("", "shoal") // t.TempDir's names are too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket := filepath.Join(dir, "redis")
	cmd := exec.Command(program, "--port", "0", "--unixsocket", socket, "--dir", dir, "--save", "", "--appendonly", "no")
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	log.Close()
	exited := make(chan error, 1)
	go func() { exited <- cmd.Wait() }()
	client := redis.NewClient(&redis.Options{Network: "unix", Addr: socket})
	t.Cleanup(func() {
		client.Close()
		cmd.Process.Signal(syscall.SIGTERM)
		<-exited
	})
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(time.Minute)
	for client.Ping(ctx).Err() != nil {
		select {
		case err := <-exited:
			exited <- err
			said, _ := os.ReadFile(filepath.Join(dir, "log"))
			t.Fatalf("redis-server ended: %v\n%s", err, said)
		case <-deadline:
			t.Fatal("redis-server does not answer")
		case <-tick.C:
		}
	}
	return client
}

// findRedis returns redis-server's path, and installs it from the distribution
// when it is missing.
func findRedis(t *testing.T) string {
	t.Helper()
	const program = "redis-server"
	if path, err := exec.LookPath(program); err == nil {
		return path
	}
	apt, err := exec.LookPath("apt-get")
	if err != nil {
		t.Fatalf("%s is missing and there is no apt-get to install it with", program)
	}
	t.Logf("installing %s", program)
	for _, args := range [][]string{{"update", "-q"}, {"install", "-q", "-y", "--no-install-recommends", program}} {
		cmd := exec.Command(apt, args...)
		// RUNLEVEL keeps the package from starting a server of its own.
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive", "RUNLEVEL=1")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("apt-get %v: %v\n%s", args, err, out)
		}
	}
	path, err := exec.LookPath(program)
	if err != nil {
		t.Fatal(err)
	}
	return path
}
