package front

import (
	"log/slog"
	"strings"

	"github.com/shoal-p2p/shoal/circuit/seldom"
	"github.com/shoal-p2p/shoal/proxy/status"
	"github.com/shoal-p2p/shoal/proxy/swarm"
)

// journal logs what clients do, in words. Nothing in it joins two ends of a
// circuit, names a torrent or holds an address.
type journal struct {
	log   *slog.Logger
	often seldom.Log
}

// failed logs a fault of the sidecar's own.
func (j *journal) failed(err error) {
	j.often.Note("failed: "+err.Error(), func(times uint64) {
		j.log.Error("an announce or a connection failed", "err", err, "times", times)
	})
}

// client logs that another client has appeared, and by what it is known.
func (j *journal) client(name swarm.Client) {
	by := "its connections, without a user name"
	switch {
	case name == Confined:
		by = "shoal run"
	case strings.HasPrefix(string(name), "user "):
		by = "a SOCKS user name"
	}
	j.log.Info("a client uses this sidecar", "known by", by)
}

// refused logs a refusal.
func (j *journal) refused(r status.Reason) {
	j.often.Note("refused: "+r.String(), func(times uint64) {
		j.log.Info("refused", "what", r.Text(), "times", times)
	})
}
