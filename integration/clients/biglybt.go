package clients

import (
	"bytes"
	"context"
	"crypto/sha1"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/anacrolix/torrent/bencode"

	"github.com/shoal-p2p/shoal/integration/process"
	"github.com/shoal-p2p/shoal/integration/torrent"
)

// BiglyBT is BiglyBT without its window, driven through its telnet console. It
// has SOCKS for peers, but looks up names in DNS all the same. Its DHT is one of
// its own; the mainline one is a plugin that the distribution doesn't have.
var BiglyBT = Kind{Name: "biglybt", NoDHT: true, Start: startBiglyBT}

type biglyBT struct {
	config  Config
	process *process.Process
	console string // HOST:PORT
}

func startBiglyBT(ctx context.Context, c Config) (Client, error) {
	if err := refuseSOCKS("biglybt", c); err != nil {
		return nil, err
	}
	if err := prepare(&c); err != nil {
		return nil, err
	}
	console, err := process.FreePort(loopback)
	if err != nil {
		return nil, err
	}
	instance, err := process.FreePort(loopback) // where a second one would find the first
	if err != nil {
		return nil, err
	}
	home := filepath.Join(c.Dir, "biglybt")
	if err := os.MkdirAll(home, 0o700); err != nil {
		return nil, err
	}
	file := filepath.Join(home, "biglybt.config")
	if _, err := os.Stat(file); err != nil { // else it is started again
		conf, err := bencode.Marshal(biglyBTConf(c, console.Port()))
		if err != nil {
			return nil, err
		}
		if err := os.WriteFile(file, conf, 0o600); err != nil {
			return nil, err
		}
	}
	args := BiglyBTCommand(home, fmt.Sprintf("-Dazureus.instance.port=%d", instance.Port()), "--ui=telnet")
	return runBiglyBT(ctx, c, c.command(console.Port(), args[0], args[1:]...), console.String())
}

// BiglyBTCommand returns the command that starts BiglyBT with its settings in
// the folder home, as the package's script does, which can't be told a folder.
// What begins with -D is for Java.
func BiglyBTCommand(home string, args ...string) []string {
	const jars = "/usr/share/java/"
	java := []string{
		"java", "-Xmx256m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC",
		"-cp", strings.Join([]string{jars + "biglybt-core.jar", jars + "biglybt-ui.jar", jars + "commons-cli.jar", jars + "bcprov.jar"}, ":"),
		"-Dazureus.install.path=/usr/share/biglybt", "-Dazureus.config.path=" + home,
	}
	var own []string
	for _, a := range args {
		if strings.HasPrefix(a, "-D") {
			java = append(java, a)
		} else {
			own = append(own, a)
		}
	}
	return append(append(java, "com.biglybt.ui.Main"), own...)
}

func runBiglyBT(ctx context.Context, c Config, cmd *exec.Cmd, console string) (Client, error) {
	cmd.Env = append(os.Environ(), "HOME="+c.Dir)
	p, err := process.Start("biglybt", cmd, filepath.Join(c.Dir, "log"))
	if err != nil {
		return nil, err
	}
	b := &biglyBT{config: c, process: p, console: console}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	err = process.Until(ctx, startPoll, func() (bool, error) {
		_, err := b.list(ctx)
		return err == nil, err
	}, p)
	if err != nil {
		p.Kill()
		return nil, fmt.Errorf("biglybt: %w", err)
	}
	return b, nil
}

// biglyBTConf is what a user would set.
func biglyBTConf(c Config, console uint16) map[string]any {
	conf := map[string]any{
		"Telnet_iPort":                  console,
		"Default save path":             c.Downloads(),
		"Use default data dir":          1,
		"TCP.Listen.Port":               c.Port,
		"UDP.Listen.Port":               c.Port,
		"UDP.NonData.Listen.Port":       c.Port,
		"update.start":                  0,
		"update.periodic":               0,
		"Plugin.UPnP.upnp.enable":       0,
		"Plugin.azbpdht.dht.enabled":    bit(!c.NoDHT),
		"peercontrol.udp.public.enable": bit(!c.NoUTP),
	}
	switch c.Encryption {
	case Require:
		conf["network.transport.encrypted.require"] = 1
	case Disable:
		conf["network.transport.encrypted.allow.incoming"] = 0
	}
	if c.DownloadLimit > 0 {
		conf["Max Download Speed KBs"] = c.DownloadLimit >> 10
	}
	return conf
}

func bit(b bool) int { return map[bool]int{true: 1}[b] }

func (b *biglyBT) Config() Config            { return b.config }
func (b *biglyBT) Process() *process.Process { return b.process }
func (b *biglyBT) Stop() error               { return b.process.Stop() }

func (b *biglyBT) Add(ctx context.Context, file []byte) error {
	var meta struct {
		Info bencode.Bytes `bencode:"info"`
	}
	if err := bencode.Unmarshal(file, &meta); err != nil {
		return fmt.Errorf("biglybt: %w", err)
	}
	h := torrent.Hash(sha1.Sum(meta.Info))
	name := filepath.Join(b.config.Dir, h.String()+".torrent")
	if err := os.WriteFile(name, file, 0o600); err != nil {
		return err
	}
	if _, err := b.tell(ctx, "add -o "+b.config.Downloads()+" "+name); err != nil {
		return err
	}
	return b.begin(ctx, h)
}

// begin lets a torrent start whatever BiglyBT thinks of its turn: it seeds
// nothing that has no peers yet.
func (b *biglyBT) begin(ctx context.Context, h torrent.Hash) error {
	return process.Until(ctx, startPoll, func() (bool, error) {
		if _, err := b.Progress(ctx, h); err != nil {
			return false, err
		}
		answer, err := b.tell(ctx, "show torrents", "forcestart hash "+strings.ToUpper(h.String()))
		return strings.Contains(answer, "succeeded"), err
	}, b.process)
}

func (b *biglyBT) AddMagnet(ctx context.Context, link string) error {
	_, err := b.tell(ctx, "add -o "+b.config.Downloads()+" "+link)
	return err
}

// biglyBTDownload is one of the console's list in XML.
type biglyBTDownload struct {
	Hash      string `xml:"TORRENT>HASH"`
	Status    string `xml:"DOWNLOAD_STATUS"`
	Tracker   string `xml:"TRACKER_STATUS"`
	Completed int    `xml:"COMPLETED"` // thousandths
}

func (b *biglyBT) list(ctx context.Context) ([]biglyBTDownload, error) {
	answer, err := b.tell(ctx, "xml")
	if err != nil {
		return nil, err
	}
	from, to := strings.Index(answer, "<?xml"), strings.LastIndex(answer, "</STATS>")
	if from < 0 || to < from {
		return nil, fmt.Errorf("biglybt: no list in %.200q", answer)
	}
	var stats struct {
		Downloads []biglyBTDownload `xml:"DOWNLOADS>DOWNLOAD"`
	}
	if err := xml.Unmarshal([]byte(answer[from:to+len("</STATS>")]), &stats); err != nil {
		return nil, fmt.Errorf("biglybt: %w", err)
	}
	return stats.Downloads, nil
}

func (b *biglyBT) Progress(ctx context.Context, h torrent.Hash) (Progress, error) {
	all, err := b.list(ctx)
	if err != nil {
		return Progress{}, err
	}
	for _, d := range all {
		if !strings.EqualFold(d.Hash, h.String()) {
			continue
		}
		busy := strings.HasPrefix(d.Status, "Checking") || strings.HasPrefix(d.Status, "Waiting") ||
			strings.HasPrefix(d.Status, "Initializing") || strings.HasPrefix(d.Status, "Allocating") || strings.HasPrefix(d.Status, "Finishing")
		return Progress{
			Done: float64(d.Completed) / 1000, Settled: !busy, State: d.Status,
			Announced: strings.HasPrefix(d.Tracker, "OK"), Announce: d.Tracker,
		}, nil
	}
	return Progress{}, ErrUnknown
}

func (b *biglyBT) Remove(ctx context.Context, h torrent.Hash) error { return b.do(ctx, "remove", h) }
func (b *biglyBT) Pause(ctx context.Context, h torrent.Hash) error  { return b.do(ctx, "stop", h) }
func (b *biglyBT) Resume(ctx context.Context, h torrent.Hash) error { return b.begin(ctx, h) }

// Reannounce does nothing: the console has no command for it.
func (b *biglyBT) Reannounce(context.Context, torrent.Hash) error { return nil }

func (b *biglyBT) do(ctx context.Context, what string, h torrent.Hash) error {
	answer, err := b.tell(ctx, "show torrents", what+" hash "+strings.ToUpper(h.String()))
	if err == nil && !strings.Contains(answer, "succeeded") {
		err = fmt.Errorf("biglybt: %s: %.200q", what, answer)
	}
	return err
}

// tell gives the console some commands and returns all that it says.
func (b *biglyBT) tell(ctx context.Context, commands ...string) (string, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", b.console)
	if err != nil {
		return "", fmt.Errorf("biglybt: %w", err)
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	if _, err := io.WriteString(conn, strings.Join(append(commands, "logout"), "\n")+"\n"); err != nil {
		return "", fmt.Errorf("biglybt: %w", err)
	}
	var said bytes.Buffer
	if _, err := said.ReadFrom(io.LimitReader(conn, maxAnswer)); err != nil && !errors.Is(err, net.ErrClosed) {
		return "", fmt.Errorf("biglybt: %w", err)
	}
	return said.String(), ctx.Err()
}
