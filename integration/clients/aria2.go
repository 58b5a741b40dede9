package clients

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/shoal-p2p/shoal/integration/process"
	"github.com/shoal-p2p/shoal/integration/torrent"
)

// Aria2 is aria2c with its RPC. It keeps no list of torrents: after a restart
// they have to be added again.
var Aria2 = Kind{Name: "aria2", Start: startAria2}

type aria2 struct {
	config  Config
	process *process.Process
	url     string
	client  http.Client
}

func startAria2(ctx context.Context, c Config) (Client, error) {
	if err := refuseSOCKS("aria2", c); err != nil {
		return nil, err
	}
	if err := prepare(&c); err != nil {
		return nil, err
	}
	rpc, err := process.FreePort(loopback)
	if err != nil {
		return nil, err
	}
	args := []string{
		"--no-conf", "--enable-rpc", fmt.Sprintf("--rpc-listen-port=%d", rpc.Port()),
		"--dir=" + c.Downloads(), fmt.Sprintf("--listen-port=%d", c.Port),
		"--seed-ratio=0.0",        // seed for ever
		"--check-integrity=true",  // what is there already counts
		"--file-allocation=none",  // a file that was allocated looks like one that is there
		"--summary-interval=0",    // nothing on stdout
		"--disable-ipv6=true",     //
		"--follow-torrent=mem",    //
		"--bt-save-metadata=true", //
		fmt.Sprintf("--enable-dht=%t", !c.NoDHT), fmt.Sprintf("--dht-listen-port=%d", c.Port),
		"--dht-file-path=" + filepath.Join(c.Dir, "dht.dat"),
	}
	if !c.NoDHT && c.Under != nil { // it has none of its own, and stops when the name can't be resolved
		args = append(args, "--dht-entry-point="+dhtEntry)
	}
	if c.Encryption == Require {
		args = append(args, "--bt-require-crypto=true", "--bt-min-crypto-level=arc4")
	}
	if c.DownloadLimit > 0 {
		args = append(args, fmt.Sprintf("--max-overall-download-limit=%d", c.DownloadLimit))
	}
	p, err := process.Start("aria2", c.command(rpc.Port(), "aria2c", args...), filepath.Join(c.Dir, "log"))
	if err != nil {
		return nil, err
	}
	a := &aria2{config: c, process: p, url: "http://" + rpc.String() + "/jsonrpc", client: c.http()}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	err = process.Until(ctx, startPoll, func() (bool, error) {
		err := a.call(ctx, "getVersion", nil)
		return err == nil, err
	}, p)
	if err != nil {
		p.Kill()
		return nil, fmt.Errorf("aria2: %w", err)
	}
	return a, nil
}

func (a *aria2) Config() Config            { return a.config }
func (a *aria2) Process() *process.Process { return a.process }

// Stop kills: what aria2 does when asked, telling trackers for seconds, it does
// when its torrents are removed.
func (a *aria2) Stop() error { return a.process.Stop() }

func (a *aria2) Add(ctx context.Context, file []byte) error {
	return a.call(ctx, "addTorrent", nil, base64.StdEncoding.EncodeToString(file))
}

func (a *aria2) AddMagnet(ctx context.Context, link string) error {
	return a.call(ctx, "addUri", nil, []string{link})
}

// aria2Download is one entry of its lists. Numbers come as text.
type aria2Download struct {
	GID         string `json:"gid"`
	Status      string `json:"status"`
	InfoHash    string `json:"infoHash"`
	Total       string `json:"totalLength"`
	Completed   string `json:"completedLength"`
	Connections string `json:"connections"`
	Verified    string `json:"verifiedLength"` // while it checks files
	Waiting     string `json:"verifyIntegrityPending"`
	Error       string `json:"errorMessage"`
	Bittorrent  struct {
		Info *struct{} `json:"info"` // missing while a magnet's description is fetched
	} `json:"bittorrent"`
}

// find returns the download of h: for a magnet the one that its description led to.
func (a *aria2) find(ctx context.Context, h torrent.Hash) (aria2Download, error) {
	var found *aria2Download
	for _, list := range []struct {
		method string
		params []any
	}{{"tellActive", nil}, {"tellWaiting", []any{0, 1000}}, {"tellStopped", []any{0, 1000}}} {
		var all []aria2Download
		if err := a.call(ctx, list.method, &all, list.params...); err != nil {
			return aria2Download{}, err
		}
		for _, d := range all {
			if strings.EqualFold(d.InfoHash, h.String()) && d.Status != "removed" && (found == nil || found.Bittorrent.Info == nil) {
				found = &d
			}
		}
	}
	if found == nil {
		return aria2Download{}, ErrUnknown
	}
	return *found, nil
}

func (a *aria2) Progress(ctx context.Context, h torrent.Hash) (Progress, error) {
	d, err := a.find(ctx, h)
	if err != nil {
		return Progress{}, err
	}
	number := func(s string) float64 { n, _ := strconv.ParseFloat(s, 64); return n }
	p := Progress{Peers: int(number(d.Connections)), State: d.Status, Announce: d.Error, Alarm: d.Error}
	p.Settled = d.Bittorrent.Info != nil && d.Verified == "" && d.Waiting == "" && d.Status == "active"
	if total := number(d.Total); total > 0 {
		p.Done = number(d.Completed) / total
	}
	p.Announced = p.Settled // it does not say; it announces as soon as it is active
	return p, nil
}

func (a *aria2) Remove(ctx context.Context, h torrent.Hash) error { return a.do(ctx, "forceRemove", h) }
func (a *aria2) Pause(ctx context.Context, h torrent.Hash) error  { return a.do(ctx, "forcePause", h) }
func (a *aria2) Resume(ctx context.Context, h torrent.Hash) error { return a.do(ctx, "unpause", h) }

// Reannounce does nothing: aria2 announces at its own pace.
func (a *aria2) Reannounce(context.Context, torrent.Hash) error { return nil }

func (a *aria2) do(ctx context.Context, method string, h torrent.Hash) error {
	d, err := a.find(ctx, h)
	if err != nil {
		return err
	}
	return a.call(ctx, method, nil, d.GID)
}

func (a *aria2) call(ctx context.Context, method string, into any, params ...any) error {
	if params == nil {
		params = []any{}
	}
	body, err := json.Marshal(map[string]any{"jsonrpc": "2.0", "id": 1, "method": "aria2." + method, "params": params})
	if err != nil {
		return err
	}
	_, b, err := post(ctx, &a.client, a.url, "application/json", nil, body)
	if err != nil {
		return fmt.Errorf("aria2: %w", err)
	}
	var answer struct {
		Result json.RawMessage           `json:"result"`
		Error  *struct{ Message string } `json:"error"`
	}
	if err := unmarshal("aria2", b, &answer); err != nil {
		return err
	}
	if answer.Error != nil {
		return fmt.Errorf("aria2: %s: %s", method, answer.Error.Message)
	}
	if into == nil {
		return nil
	}
	return unmarshal("aria2", answer.Result, into)
}
