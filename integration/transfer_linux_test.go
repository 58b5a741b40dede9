package integration

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/shoal-p2p/shoal/integration/clients"
	"github.com/shoal-p2p/shoal/integration/testnet"
	"github.com/shoal-p2p/shoal/integration/torrent"
)

// The trackers of the tests' torrents: nobody has these names.
const (
	httpTracker  = "http://tracker.invalid:6969/announce"
	httpsTracker = "https://tracker.invalid/announce"
	udpTracker   = "udp://tracker.invalid:6969/announce"
)

// TestQBittorrentToQBittorrent moves a small file with each of the settings
// that change the roads, dialled from either side: whoever announces last
// learns of the other and dials.
func TestQBittorrentToQBittorrent(t *testing.T) {
	net := network(t)
	for _, dht := range []string{"dht-on", "dht-off"} {
		for _, encryption := range []clients.Encryption{clients.Prefer, clients.Disable} {
			for _, dials := range []string{"leecher-dials", "seeder-dials"} {
				t.Run(fmt.Sprintf("%s-%v-%s", dht, encryption, dials), func(t *testing.T) {
					ctx := deadline(t)
					set := func(c *clients.Config) { c.NoDHT, c.Encryption = dht == "dht-off", encryption }
					seeder := client(t, ctx, net.Sidecars[0], set)
					leecher := client(t, ctx, net.Sidecars[1], set)
					tor := noise(t, 1<<20, httpTracker)
					if dials == "seeder-dials" {
						add(t, ctx, leecher, tor)
						announced(t, ctx, leecher, tor)
						seed(t, ctx, seeder, tor)
					} else {
						seed(t, ctx, seeder, tor)
						announced(t, ctx, seeder, tor)
						add(t, ctx, leecher, tor)
					}
					arrives(t, ctx, leecher, tor)
				})
			}
		}
	}
}

func TestALargeFileArrivesWhole(t *testing.T) {
	net := network(t)
	ctx := deadline(t)
	seeder := client(t, ctx, net.Sidecars[0], nil)
	leecher := client(t, ctx, net.Sidecars[1], nil)
	tor := noise(t, 64<<20, httpTracker)
	seed(t, ctx, seeder, tor)
	announced(t, ctx, seeder, tor)
	began := time.Now()
	add(t, ctx, leecher, tor)
	arrives(t, ctx, leecher, tor)
	t.Logf("%.1f MB/s", float64(len(tor.Data))/1e6/time.Since(began).Seconds())
}

// TestAThirdCompletesFromTheOtherTwo: neither of the two has it all.
func TestAThirdCompletesFromTheOtherTwo(t *testing.T) {
	net := network(t)
	ctx := deadline(t)
	tor := noise(t, 4<<20, httpTracker)
	var all []clients.Client
	for i := range 3 {
		c := client(t, ctx, net.Sidecars[i], nil)
		if i < 2 {
			half := tor
			half.Data = slices.Clone(tor.Data)
			clear(half.Data[i*len(half.Data)/2:][:len(half.Data)/2])
			if err := half.Put(c.Config().Downloads()); err != nil {
				t.Fatal(err)
			}
		}
		all = append(all, c)
	}
	for i, c := range all {
		add(t, ctx, c, tor)
		if i < 2 {
			announced(t, ctx, c, tor)
		}
	}
	for _, i := range []int{2, 0, 1} {
		arrives(t, ctx, all[i], tor)
	}
}

func TestAMagnetWithATrackerArrives(t *testing.T) {
	net := network(t)
	ctx := deadline(t)
	seeder := client(t, ctx, net.Sidecars[0], nil)
	leecher := client(t, ctx, net.Sidecars[1], nil)
	tor := noise(t, 1<<20, httpTracker)
	seed(t, ctx, seeder, tor)
	announced(t, ctx, seeder, tor)
	if err := leecher.AddMagnet(ctx, tor.Magnet()); err != nil {
		t.Fatal(err)
	}
	arrives(t, ctx, leecher, tor)
}

func TestATorrentWithOnlyAUDPTrackerArrives(t *testing.T) {
	net := network(t)
	ctx := deadline(t)
	seeder := client(t, ctx, net.Sidecars[0], nil)
	leecher := client(t, ctx, net.Sidecars[1], nil)
	tor := noise(t, 1<<20, udpTracker)
	seed(t, ctx, seeder, tor)
	announced(t, ctx, seeder, tor)
	add(t, ctx, leecher, tor)
	arrives(t, ctx, leecher, tor)
}

// reach is when a newcomer certainly has a small file from a seeder that says
// nothing by itself: two seconds from the newcomer's announce to the seeder, and
// what a busy machine adds. Without the sidecar's help the seeder would be heard
// of again after a minute.
const reach = 40 * time.Second

// TestASilentSeederIsReached: the seeder has announced once, to nobody, and has
// been quiet for longer than any handshake takes.
func TestASilentSeederIsReached(t *testing.T) {
	t.Parallel() // most of it is that silence
	net := network(t)
	ctx := deadline(t)
	quiet := func(c *clients.Config) { c.NoDHT = true }
	seeder := client(t, ctx, net.Sidecars[0], quiet)
	leecher := client(t, ctx, net.Sidecars[1], quiet)
	tor := noise(t, 64<<10, httpTracker)
	seed(t, ctx, seeder, tor)
	announced(t, ctx, seeder, tor)
	select {
	case <-time.After(12 * time.Second): // longer than a µTP connection to the beacon is kept
	case <-ctx.Done():
	}
	began := time.Now()
	add(t, ctx, leecher, tor)
	arrives(t, ctx, leecher, tor)
	if took := time.Since(began); took > reach {
		t.Errorf("the file came after %v, want it within %v", took, reach)
	}
}

func TestAClientRestartedInTheMiddleCompletes(t *testing.T) {
	net := network(t)
	for _, who := range []string{"leecher", "seeder"} {
		t.Run(who, func(t *testing.T) {
			ctx := deadline(t)
			seeder := client(t, ctx, net.Sidecars[0], nil)
			leecher := client(t, ctx, net.Sidecars[1], func(c *clients.Config) { c.DownloadLimit = 4 << 20 })
			tor := noise(t, 16<<20, httpTracker)
			seed(t, ctx, seeder, tor)
			announced(t, ctx, seeder, tor)
			add(t, ctx, leecher, tor)
			err := clients.WaitFor(ctx, leecher, tor.Hash, func(p clients.Progress) bool { return p.Done > 0.2 })
			if err != nil {
				t.Fatal(err)
			}
			again := map[string]clients.Client{"leecher": leecher, "seeder": seeder}[who]
			if err := again.Stop(); err != nil {
				t.Fatal(err)
			}
			restarted := startClient(t, ctx, clients.QBittorrent, again.Config())
			if who == "leecher" {
				leecher = restarted
			}
			arrives(t, ctx, leecher, tor)
		})
	}
}

// TestEveryNumberOfHopsCarries: also sides that differ, as nobody knows the
// other's choice.
func TestEveryNumberOfHopsCarries(t *testing.T) {
	ctx := deadline(t)
	net := start(t, ctx, testnet.Config{Trackers: 1, Relays: 6, Sidecars: 5, Hops: []int{0, 1, 2, 3, 4}, Block: 1})
	for _, pair := range [][2]int{{0, 4}, {1, 3}, {4, 2}, {0, 0}} {
		t.Run(fmt.Sprintf("%d-%d", pair[0], pair[1]), func(t *testing.T) {
			seeder := client(t, ctx, net.Sidecars[pair[0]], nil)
			leecher := client(t, ctx, net.Sidecars[pair[1]], nil)
			tor := noise(t, 1<<20, httpTracker)
			seed(t, ctx, seeder, tor)
			announced(t, ctx, seeder, tor)
			add(t, ctx, leecher, tor)
			arrives(t, ctx, leecher, tor)
		})
	}
}

// TestTwoClientsOfOneSidecarAreTwoPeers: they are told apart, and find each
// other like strangers.
func TestTwoClientsOfOneSidecarAreTwoPeers(t *testing.T) {
	net := network(t)
	ctx := deadline(t)
	seeder := client(t, ctx, net.Sidecars[0], func(c *clients.Config) { c.User, c.Password = "one", "x" })
	leecher := client(t, ctx, net.Sidecars[0], func(c *clients.Config) { c.User, c.Password = "two", "x" })
	tor := noise(t, 1<<20, httpTracker)
	seed(t, ctx, seeder, tor)
	announced(t, ctx, seeder, tor)
	add(t, ctx, leecher, tor)
	arrives(t, ctx, leecher, tor)
}

func TestSeveralTorrentsOfOneClientMoveAtOnce(t *testing.T) {
	net := network(t)
	ctx := deadline(t)
	seeder := client(t, ctx, net.Sidecars[0], nil)
	leecher := client(t, ctx, net.Sidecars[1], nil)
	tors := make([]torrent.Torrent, 3) // as many as qBittorrent downloads at once
	for i := range tors {
		tors[i] = noise(t, (i+1)<<20, httpTracker)
		seed(t, ctx, seeder, tors[i])
	}
	for _, tor := range tors {
		announced(t, ctx, seeder, tor)
		add(t, ctx, leecher, tor)
	}
	for _, tor := range tors {
		arrives(t, ctx, leecher, tor)
	}
}
