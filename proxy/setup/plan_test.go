package setup

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// files are a settings file of each client.
func files(t *testing.T) map[Client]string {
	t.Helper()
	return map[Client]string{
		QBittorrent:  sections(t, "qbittorrent.txt")["4.5 with another proxy"],
		Deluge:       sections(t, "objects.txt")["Deluge 2.0"],
		Transmission: sections(t, "objects.txt")["Transmission 4.1"],
		BiglyBT:      strings.TrimSpace(sections(t, "biglybt.txt")["3.2 behind a proxy"]),
	}
}

// closed is a client that does not run, with such a file.
func closed(t *testing.T, c Client, text string) Instance {
	t.Helper()
	file := filepath.Join(t.TempDir(), "settings")
	if err := os.WriteFile(file, []byte(text), 0o640); err != nil {
		t.Fatal(err)
	}
	return Instance{Client: c, File: file}
}

func content(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// apply plans and applies, and returns the plan.
func apply(t *testing.T, i Instance, w Want, state string) *Plan {
	t.Helper()
	p, err := NewPlan(t.Context(), i, w, state)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Apply(t.Context()); err != nil {
		t.Fatal(err)
	}
	return p
}

func undo(t *testing.T, i Instance, state string) *Plan {
	t.Helper()
	p, err := NewUndo(t.Context(), i, state)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Apply(t.Context()); err != nil {
		t.Fatal(err)
	}
	return p
}

func TestUndoBringsAFileBackToTheByte(t *testing.T) {
	for c, text := range files(t) {
		for name, text := range map[string]string{
			"as it is": text, "without its last newline": strings.TrimRight(text, "\n"), "with Windows' ends of lines": strings.ReplaceAll(text, "\n", "\r\n"),
		} {
			i, state := closed(t, c, text), filepath.Join(t.TempDir(), "state")
			p := apply(t, i, want, state)
			if p.API() || len(p.Changes) == 0 || content(t, i.File) == text {
				t.Fatalf("%v %s: nothing changed", c, name)
			}
			again, err := NewPlan(t.Context(), i, want, state)
			if err != nil || len(again.Changes) > 0 {
				t.Errorf("%v %s: a second time: %v, %v", c, name, again, err)
			}
			if err := again.Apply(t.Context()); err != nil { // and it forgets nothing
				t.Fatal(err)
			}
			undo(t, i, state)
			if got := content(t, i.File); got != text {
				t.Errorf("%v %s: got\n%s\nwant\n%s", c, name, got, text)
			}
			if _, err := NewUndo(t.Context(), i, state); err == nil {
				t.Errorf("%v %s: it can be undone twice", c, name)
			}
		}
	}
}

func TestOfSeveralSetupsTheFirstIsUndone(t *testing.T) {
	for c, text := range files(t) {
		if c.NoSOCKS() != "" {
			continue // there is only one
		}
		i, state := closed(t, c, text), t.TempDir()
		apply(t, i, want, state)
		other := want
		other.User, other.Password = "me", "secret"
		apply(t, i, other, state)
		undo(t, i, state)
		if got := content(t, i.File); got != text {
			t.Errorf("%s: got\n%s\nwant\n%s", c, got, text)
		}
	}
}

func TestUndoLeavesAloneWhatTheClientHasWrittenSince(t *testing.T) {
	for c, text := range files(t) {
		i, state := closed(t, c, text), t.TempDir()
		apply(t, i, want, state)
		f := c.(configurable).format()
		was, _ := f.get([]byte(text), "dht")
		name, since := "max_upload_speed", "7.5"
		switch c {
		case QBittorrent:
			name, since = "BitTorrent/Session/Port", "1234"
		case BiglyBT:
			name, since = "TCP.Listen.Port", "i1234e"
		}
		b, err := f.set([]byte(content(t, i.File)), name, since)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(i.File, b, 0o640); err != nil {
			t.Fatal(err)
		}
		undo(t, i, state)
		now := []byte(content(t, i.File))
		if got, _ := f.get(now, name); got != since {
			t.Errorf("%s: what was written since is %q", c, got)
		}
		if got, _ := f.get(now, "dht"); got != was {
			t.Errorf("%s: dht is %q, want %q", c, got, was)
		}
		old, err := f.parse([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		back, err := f.parse(now)
		if err != nil {
			t.Fatal(err)
		}
		delete(old, name)
		delete(back, name)
		if !same(value(old), value(back)) {
			t.Errorf("%s: got\n%s\nwant\n%s", c, value(back), value(old))
		}
	}
}

func TestAFileThatChangedMeanwhileIsLeftAlone(t *testing.T) {
	i, state := closed(t, Deluge, files(t)[Deluge]), t.TempDir()
	p, err := NewPlan(t.Context(), i, want, state)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(i.File, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := p.Apply(t.Context()); !errors.Is(err, errMeanwhile) {
		t.Errorf("got %v", err)
	}
	if got := content(t, i.File); got != "{}" {
		t.Errorf("the file is %q", got)
	}
	if _, err := NewUndo(t.Context(), i, state); err == nil {
		t.Error("what was not done can be undone")
	}
}

func TestADamagedFileIsRefused(t *testing.T) {
	for _, c := range []Client{Deluge, Transmission} {
		i := closed(t, c, `{"proxy": {"type": 0}`)
		if _, err := NewPlan(t.Context(), i, want, t.TempDir()); err == nil {
			t.Errorf("%s: it was planned with", c)
		}
	}
	i := closed(t, Deluge, strings.Repeat(" ", maxFile)+"{}")
	if _, err := NewPlan(t.Context(), i, want, t.TempDir()); err == nil {
		t.Error("a file of a megabyte was read")
	}
	state := t.TempDir()
	i = closed(t, Deluge, files(t)[Deluge])
	apply(t, i, want, state)
	record := store{state}.path(i)
	for _, b := range []string{"", "{", "[]", `{"client": "qbittorrent"}`} {
		if err := recordFile.Save(record, []byte(b)); err != nil {
			t.Fatal(err)
		}
		if _, err := NewUndo(t.Context(), i, state); err == nil {
			t.Errorf("undone by a record %q", b)
		}
	}
}

func TestTheWantedAddressMustBeOne(t *testing.T) {
	i := closed(t, QBittorrent, files(t)[QBittorrent])
	if _, err := NewPlan(t.Context(), i, Want{}, t.TempDir()); err == nil {
		t.Error("no address was taken")
	}
}

// fakeQB is qBittorrent's web API: it takes settings that it has, wants a
// login when it has a password, and hates strangers' pages.
type fakeQB struct {
	settings settings
	password string
	deaf     bool // it takes nothing, and says that it did
}

func (q *fakeQB) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !strings.HasPrefix(r.Header.Get("Referer"), "http://"+r.Host) {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	if r.URL.Path == "/api/v2/auth/login" {
		if r.FormValue("username") == "admin" && r.FormValue("password") == q.password {
			http.SetCookie(w, &http.Cookie{Name: "SID", Value: "yes"})
			w.Write([]byte("Ok."))
		} else {
			w.Write([]byte("Fails."))
		}
		return
	}
	if c, err := r.Cookie("SID"); q.password != "" && (err != nil || c.Value != "yes") {
		w.WriteHeader(http.StatusForbidden)
		return
	}
	switch r.URL.Path {
	case "/api/v2/app/preferences":
		json.NewEncoder(w).Encode(q.settings)
	case "/api/v2/app/setPreferences":
		var s settings
		if err := json.Unmarshal([]byte(r.FormValue("json")), &s); err != nil || r.Method != http.MethodPost {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		for k, v := range s {
			if !q.deaf {
				q.settings[k] = v
			}
		}
	default:
		w.WriteHeader(http.StatusNotFound)
	}
}

// running is a client that answers at a URL, with a file that it writes itself.
func running(t *testing.T, c Client, url string) Instance {
	t.Helper()
	i := closed(t, c, files(t)[c])
	i.access = Access{URL: url}
	return i
}

func TestAQBittorrentThatRunsIsToldAndUndone(t *testing.T) {
	q := &fakeQB{settings: read(t, api45)}
	server := httptest.NewServer(q)
	defer server.Close()
	i, state := running(t, QBittorrent, server.URL+"/"), t.TempDir()
	before := content(t, i.File)
	p := apply(t, i, want, state)
	if !p.API() || !same(q.settings["proxy_type"], value(2)) || !same(q.settings["dht"], value(false)) {
		t.Errorf("it was told %v and has %s", p.Changes, value(q.settings))
	}
	if content(t, i.File) != before {
		t.Error("its file was written while it runs")
	}
	undo(t, i, state)
	if !same(value(q.settings), value(read(t, api45))) {
		t.Errorf("got %s, want %s", value(q.settings), api45)
	}
}

func TestWhatWasToldIsUndoneInTheFileWhenTheClientIsClosed(t *testing.T) {
	q := &fakeQB{settings: read(t, api45)}
	server := httptest.NewServer(q)
	i, state := running(t, QBittorrent, server.URL), t.TempDir()
	before := content(t, i.File)
	apply(t, i, want, state)
	server.Close()
	// It ends, and writes what it was told.
	b := []byte(before)
	for name, v := range map[string]string{
		"Network/Proxy/Type": "SOCKS5", "Network/Proxy/IP": "127.0.0.1", "Network/Proxy/Port": "1080",
		"BitTorrent/Session/ProxyPeerConnections": "true", "BitTorrent/Session/DHTEnabled": "false",
	} {
		b = ini(b).set(name, v)
	}
	if err := os.WriteFile(i.File, b, 0o640); err != nil {
		t.Fatal(err)
	}
	i.access = Access{}
	undo(t, i, state)
	if got := content(t, i.File); got != before {
		t.Errorf("got\n%s\nwant\n%s", got, before)
	}
}

func TestTheTwoWaysAreNotMixed(t *testing.T) {
	q := &fakeQB{settings: read(t, api45)}
	server := httptest.NewServer(q)
	defer server.Close()
	i, state := running(t, QBittorrent, server.URL), t.TempDir()
	shut := i
	shut.access = Access{}
	apply(t, shut, want, state)
	var hinted *HintError
	if _, err := NewPlan(t.Context(), i, want, state); !errors.As(err, &hinted) {
		t.Errorf("set up again while it runs: %v", err)
	}
	if _, err := NewUndo(t.Context(), i, state); !errors.As(err, &hinted) {
		t.Errorf("undone while it runs: %v", err)
	}
}

func TestAQBittorrentWithAPasswordWantsIt(t *testing.T) {
	q := &fakeQB{settings: read(t, api50), password: "secret"}
	server := httptest.NewServer(q)
	defer server.Close()
	i := running(t, QBittorrent, server.URL)
	for _, a := range []Access{{URL: server.URL}, {URL: server.URL, User: "admin", Password: "wrong"}} {
		i.access = a
		if _, err := NewPlan(t.Context(), i, want, t.TempDir()); !errors.Is(err, ErrLogin) {
			t.Errorf("%+v: %v", a, err)
		}
	}
	i.access.Password = "secret"
	apply(t, i, want, t.TempDir())
	if got := q.settings.text("proxy_type"); got != "SOCKS5" {
		t.Errorf("its proxy is %q", got)
	}
}

func TestWhatWasNotTakenIsAnError(t *testing.T) {
	server := httptest.NewServer(&fakeQB{settings: read(t, api45), deaf: true})
	defer server.Close()
	p, err := NewPlan(t.Context(), running(t, QBittorrent, server.URL), want, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Apply(t.Context()); err == nil {
		t.Error("a deaf client was set up")
	}
}

func TestATransmissionThatRunsIsToldAndUndone(t *testing.T) {
	had := `{"dht-enabled":true,"lpd-enabled":true,"utp-enabled":true,"port-forwarding-enabled":false,"peer-port":51413}`
	s := read(t, had)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Transmission-Session-Id") != "s" {
			w.Header().Set("X-Transmission-Session-Id", "s")
			w.WriteHeader(http.StatusConflict)
			return
		}
		if _, password, _ := r.BasicAuth(); password != "secret" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		var call struct {
			Method    string
			Arguments settings
		}
		if err := json.NewDecoder(r.Body).Decode(&call); err != nil {
			t.Error(err)
		}
		for k, v := range call.Arguments {
			s[k] = v
		}
		json.NewEncoder(w).Encode(map[string]any{"result": "success", "arguments": s})
	}))
	defer server.Close()
	i, state := running(t, Transmission, server.URL), t.TempDir()
	if _, err := NewPlan(t.Context(), i, want, state); !errors.Is(err, ErrLogin) {
		t.Errorf("without a password: %v", err)
	}
	i.access.User, i.access.Password = "me", "secret"
	p := apply(t, i, Want{}, state)
	if s.is("lpd-enabled", true) || s.is("utp-enabled", true) || !s.is("dht-enabled", false) || len(p.Notes) == 0 {
		t.Errorf("it has %s and notes %q", value(s), p.Notes)
	}
	undo(t, i, state)
	if !same(value(s), []byte(had)) {
		t.Errorf("got %s, want %s", value(s), had)
	}
}

func TestAServerThatNeverEndsIsLeft(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	defer server.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := NewPlan(ctx, running(t, QBittorrent, server.URL), want, t.TempDir()); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}
