package status

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"html/template"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// fixed is a Source that doesn't change.
type fixed Status

func (f fixed) Status() Status { return Status(f) }

func full() fixed {
	return fixed{
		Version:  "1.2.3, commit abc",
		Ready:    true,
		Hops:     2,
		Trackers: Trackers{All: 3, Asked: 3, Answer: 2},
		Circuits: []Circuit{{"tracker", 3, "open"}, {"peer", 3, "open"}, {"inbound", 3, "building"}, {"peer", 3, "open"}},
		Streams:  1,
		BytesIn:  1234567,
		BytesOut: 89,
		Warnings: []string{`tick "Use proxy for peer connections"`},
	}
}

const port = 9090

// request asks a Server of s under the Host that it should be asked under.
func request(s *Server, method, path string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	r := httptest.NewRequest(method, path, nil)
	r.Host = fmt.Sprintf("127.0.0.1:%d", port)
	s.handler(port).ServeHTTP(w, r)
	return w
}

// The shape that other programs rely on.
func TestStatusJSONHasExactlyThisShape(t *testing.T) {
	var c Counters
	c.Add(WebSeed)
	got := request(NewServer(full(), &c), "GET", "/status.json")
	want := `{"version":"1.2.3, commit abc","ready":true,"why":"","cause":"","advice":"","trackers":{"all":3,"asked":3,"answer":2},"hops":2,"circuits":[` +
		`{"use":"inbound","hops":3,"state":"building"},{"use":"peer","hops":3,"state":"open"},{"use":"peer","hops":3,"state":"open"},{"use":"tracker","hops":3,"state":"open"}],` +
		`"streams":1,"bytes_in":1234567,"bytes_out":89,"refused":{"bittorrent":0,"certificate":0,"command":0,"datagram":0,"dht_limit":0,"foreign_host":0,"full":0,"http_proxy":0,"no_password":0,"no_tracker":0,"no_way_in":0,` +
		`"not_bittorrent":0,"not_proxied":0,"not_ready":0,"password":0,"silent":0,"socks4":0,"system":0,"tls":0,"unknown_standin":0,"unreachable":0,"unreadable":0,"web":0,"web_seed":1,"wrong_swarm":0}}` + "\n"
	if got.Body.String() != want || got.Header().Get("Content-Type") != "application/json" {
		t.Errorf("got  %s\nwant %s", got.Body, want)
	}
	empty := request(NewServer(fixed{}, &c), "GET", "/status.json").Body.String()
	if !strings.HasPrefix(empty, `{"version":"","ready":false,"why":"","cause":"","advice":"","trackers":{"all":0,"asked":0,"answer":0},"hops":0,"circuits":[],"streams":0,"bytes_in":0,"bytes_out":0,"refused":{`) {
		t.Errorf("nothing yet: %s", empty)
	}
}

func TestMetricsAreTheSameNumbersAndNothingElse(t *testing.T) {
	var c Counters
	c.Add(WebSeed)
	got := request(NewServer(full(), &c), "GET", "/metrics").Body.String()
	for _, line := range []string{
		"shoal_ready 1", "shoal_trackers 3", "shoal_trackers_answering 2", "shoal_hops 2", "shoal_streams 1", "shoal_warnings 1",
		`shoal_bytes_total{direction="in"} 1.234567e+06`, `shoal_bytes_total{direction="out"} 89`,
		`shoal_circuits{hops="3",state="open",use="peer"} 2`, `shoal_circuits{hops="3",state="building",use="inbound"} 1`,
		`shoal_refused_total{reason="web_seed"} 1`, `shoal_refused_total{reason="tls"} 0`,
	} {
		if !strings.Contains(got, "\n"+line+"\n") {
			t.Errorf("no line %s in\n%s", line, got)
		}
	}
	for line := range strings.Lines(got) {
		if !strings.HasPrefix(line, "shoal_") && !strings.HasPrefix(line, "# HELP shoal_") && !strings.HasPrefix(line, "# TYPE shoal_") {
			t.Errorf("a line that isn't ours: %s", line)
		}
	}
}

func TestProbesSayIfAndWhyNot(t *testing.T) {
	s := NewServer(full(), &Counters{})
	if w := request(s, "GET", "/readyz"); w.Code != 200 || w.Body.String() != "ready\n" {
		t.Errorf("ready: %d %q", w.Code, w.Body)
	}
	s = NewServer(fixed{Why: "The guard is down.", Cause: "refused", Advice: "Wait."}, &Counters{})
	if w := request(s, "GET", "/readyz"); w.Code != 503 || w.Body.String() != "not ready: The guard is down. Wait.\n" {
		t.Errorf("not ready: %d %q", w.Code, w.Body)
	}
	if got := request(s, "GET", "/metrics").Body.String(); !strings.Contains(got, "\nshoal_not_ready{cause=\"refused\"} 1\n") {
		t.Errorf("the cause is no metric: %s", got)
	}
	if w := request(s, "GET", "/healthz"); w.Code != 200 || w.Body.String() != "ok\n" {
		t.Errorf("health: %d %q", w.Code, w.Body)
	}
}

func TestOnlyThisComputersNamesAreServed(t *testing.T) {
	for host, ok := range map[string]bool{
		"127.0.0.1:9090": true, "localhost:9090": true, "LocalHost:9090": true, "[::1]:9090": true, "127.9.8.7:9090": true, "[::ffff:127.0.0.1]:9090": true,
		"127.0.0.1": false, "localhost": false, "127.0.0.1:9091": false, "localhost:80": false, "": false, ":9090": false,
		"evil.example:9090": false, "localhost.evil.example:9090": false, "127.0.0.1.evil.example:9090": false, "127.0.0.1.nip.io:9090": false,
		"192.168.1.2:9090": false, "0.0.0.0:9090": false, "[::]:9090": false, "10.0.0.1:9090": false, "localhost.:9090": false,
		"127.1:9090": false, "2130706433:9090": false, "127.0.0.1:09090": false, "127.0.0.1:9090:9090": false, "user@127.0.0.1:9090": false,
		"[::1%lo]:9090": false,
	} {
		var c Counters
		w := httptest.NewRecorder()
		r := httptest.NewRequest("GET", "/status.json", nil)
		r.Host = host
		NewServer(full(), &c).handler(port).ServeHTTP(w, r)
		if got := w.Code == 200; got != ok {
			t.Errorf("Host %q: %d, want served %v", host, w.Code, ok)
		}
		if got := c.Counts()["foreign_host"] == 0; got != ok {
			t.Errorf("Host %q: counted as foreign %v", host, !got)
		}
		if !ok && strings.Contains(w.Body.String(), "hops") {
			t.Errorf("Host %q: told %s", host, w.Body)
		}
	}
	for host, ok := range map[string]bool{"127.0.0.1": true, "localhost": true, "[::1]": true, "evil.example": false} {
		if got := isOurs(host, 80); got != ok {
			t.Errorf("Host %q on port 80: %v, want %v", host, got, ok)
		}
	}
}

func TestOtherMethodsAndPathsAreRefused(t *testing.T) {
	s := NewServer(full(), &Counters{})
	for _, path := range []string{"/", "/status.json", "/metrics", "/healthz", "/readyz"} {
		for _, method := range []string{"POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE"} {
			if w := request(s, method, path); w.Code != http.StatusMethodNotAllowed {
				t.Errorf("%s %s: %d, want %d", method, path, w.Code, http.StatusMethodNotAllowed)
			}
		}
		if w := request(s, "HEAD", path); w.Code != 200 {
			t.Errorf("HEAD %s: %d", path, w.Code)
		}
	}
	for _, path := range []string{"/x", "/debug/pprof/", "/status.json/", "/index.html", "/page.css"} {
		if w := request(s, "GET", path); w.Code != http.StatusNotFound {
			t.Errorf("GET %s: %d, want %d", path, w.Code, http.StatusNotFound)
		}
	}
}

func TestEveryAnswerIsForThisPageAlone(t *testing.T) {
	s := NewServer(full(), &Counters{})
	for _, path := range []string{"/", "/status.json", "/metrics", "/healthz", "/nothing"} {
		w := request(s, "GET", path)
		for _, kv := range headers {
			if got := w.Header().Get(kv[0]); got != kv[1] {
				t.Errorf("%s: %s is %q, want %q", path, kv[0], got, kv[1])
			}
		}
		if w.Header().Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("%s may be read by other pages", path)
		}
	}
}

func TestThePageShowsStateInWords(t *testing.T) {
	var c Counters
	c.Add(Web)
	c.Add(Web)
	c.Add(BitTorrent)
	s := NewServer(full(), &c)
	s.samples.add(sample{time.Unix(0, 0), 0, 0})
	s.samples.add(sample{time.Unix(2, 0), 4e6, 3000})
	got := request(s, "GET", "/").Body.String()
	for _, want := range []string{
		"Ready", "2.0 MB/s", "1.5 KB/s", "1.2 MB so far", "To peers", "Where peers find us", "To trackers", "building",
		template.HTMLEscapeString(Web.Text()), BitTorrent.Text(), "Refused so far: 3", `tick &#34;Use proxy for peer connections&#34;`, "<polyline",
		"Shoal 1.2.3, commit abc.", `class="short">2 of 3<`,
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q on the page", want)
		}
	}
	if strings.Index(got, template.HTMLEscapeString(Web.Text())) > strings.Index(got, BitTorrent.Text()) {
		t.Error("the rarer refusal stands first")
	}
	if strings.Contains(got, WebSeed.Text()) {
		t.Error("what never happened is on the page")
	}

	got = request(NewServer(fixed{Why: "<script>alert(1)</script>", Advice: "Set the clock.", Trackers: Trackers{All: 3, Asked: 1}}, &Counters{}), "GET", "/").Body.String()
	for _, want := range []string{"Not ready", "&lt;script&gt;alert(1)", "Set the clock.", "0 answered<", "None yet", "Nothing so far", "0 B/s"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q on the empty page", want)
		}
	}
	if strings.Contains(got, "polyline class") {
		t.Error("a graph of nothing")
	}
}

func TestThePolicyAllowsExactlyThePagesOwnStyleAndScript(t *testing.T) {
	page := request(NewServer(full(), &Counters{}), "GET", "/").Body.String()
	for tag, kind := range map[string]string{"style": "style-src", "script": "script-src"} {
		m := regexp.MustCompile(`(?s)<`+tag+`>(.*?)</`+tag+`>`).FindAllStringSubmatch(page, -1)
		if len(m) != 1 {
			t.Fatalf("%d %s elements, want 1", len(m), tag)
		}
		if !strings.Contains(pageCSP, kind+" "+cspHash(m[0][1])) {
			t.Errorf("the policy doesn't allow the page's own %s", tag)
		}
	}
	if regexp.MustCompile(`\son[a-z]+=|\sstyle=|javascript:|https?://[^w]`).MatchString(page) {
		t.Error("the page has something that its policy forbids")
	}
}

func TestEveryReasonHasANameAndWords(t *testing.T) {
	seen := map[string]bool{}
	for r := range Reason(reasons) {
		if !regexp.MustCompile(`^[a-z]+[0-9]*(_[a-z]+)*$`).MatchString(r.String()) || seen[r.String()] || len(r.Text()) < 20 || !strings.HasSuffix(r.Text(), ".") {
			t.Errorf("reason %d: %q, %q", r, r, r.Text())
		}
		seen[r.String()] = true
	}
	if Reason(200).String() != "unknown" || Reason(200).Text() == "" {
		t.Errorf("a reason that doesn't exist: %q", Reason(200))
	}
	var c Counters
	c.Add(200)
	for name, n := range c.Counts() {
		if n != 0 {
			t.Errorf("%s counted %d", name, n)
		}
	}
}

// TestAdviceIsGivenForAWhile after what only the user can change.
func TestAdviceIsGivenForAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for r := range Reason(reasons) {
			var c Counters
			c.Add(r)
			want := 0
			if advice[r] != "" {
				want = 1
			}
			if got := c.Advice(time.Now()); len(got) != want || want == 1 && !strings.Contains(got[0], " settings") {
				t.Errorf("%v: advice %q", r, got)
			}
			time.Sleep(adviceFor)
			if got := c.Advice(time.Now()); len(got) != 0 {
				t.Errorf("%v: after %v still %q", r, adviceFor, got)
			}
		}
	})
}

func TestCountersCountFromManyGoroutines(t *testing.T) {
	var c Counters
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			for r := range Reason(reasons) {
				c.Add(r)
			}
			c.Counts()
		})
	}
	wg.Wait()
	for name, n := range c.Counts() {
		if n != 50 {
			t.Errorf("%s: %d, want 50", name, n)
		}
	}
}

func TestListenIsForLoopbackOnly(t *testing.T) {
	for _, addr := range []string{"", ":0", "0.0.0.0:0", "[::]:0", "192.168.1.2:0", "example.org:0", "127.0.0.1", "127.0.0.1:x"} {
		if ln, err := Listen(addr); err == nil {
			ln.Close()
			t.Errorf("Listen(%q) took it", addr)
		}
	}
	for _, addr := range []string{"127.0.0.1:0", "localhost:0", "127.5.6.7:0"} {
		ln, err := Listen(addr)
		if err != nil {
			t.Errorf("Listen(%q): %v", addr, err)
			continue
		}
		ln.Close()
	}
}

func TestRunServesUntilItsContextEnds(t *testing.T) {
	ln, err := Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- NewServer(full(), &Counters{}).Run(ctx, ln) }()
	resp, err := http.Get("http://" + ln.Addr().String() + "/status.json")
	if err != nil {
		t.Fatal(err)
	}
	var st Status
	if err := json.NewDecoder(resp.Body).Decode(&st); err != nil || !st.Ready {
		t.Errorf("%+v, %v", st, err)
	}
	resp.Body.Close()
	idle, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer idle.Close()
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Run: %v", err)
	}
	if _, err := idle.Read(make([]byte, 1)); err == nil {
		t.Error("a connection outlived Run")
	}
}

func TestRunRefusesAnOpenListener(t *testing.T) {
	ln, err := net.Listen("tcp", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := NewServer(full(), &Counters{}).Run(t.Context(), ln); err == nil {
		t.Error("Run served it")
	}
	if _, err := ln.Accept(); err == nil {
		t.Error("the listener is still open")
	}
}

func TestRunTakesNoLongHeaders(t *testing.T) {
	ln, err := Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go NewServer(full(), &Counters{}).Run(t.Context(), ln)
	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	go io.WriteString(c, "GET / HTTP/1.1\r\nHost: "+ln.Addr().String()+"\r\nX: "+strings.Repeat("x", 64<<10)+"\r\n\r\n")
	line, _ := bufio.NewReader(c).ReadString('\n')
	if !strings.Contains(line, "431") {
		t.Errorf("answered %q", line)
	}
}

// growing is a Source whose bytes grow with the time.
type growing struct{ start time.Time }

func (g growing) Status() Status {
	s := uint64(time.Since(g.start) / time.Second)
	return Status{BytesIn: 1000 * s, BytesOut: 10 * s}
}

func TestGoodputIsOfTheLastSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewServer(growing{time.Now()}, &Counters{})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go s.sample(ctx)
		time.Sleep(time.Hour + time.Second)
		in, out, nowIn, nowOut := s.samples.rates()
		if nowIn != 1000 || nowOut != 10 {
			t.Errorf("now %v in, %v out, want 1000 and 10", nowIn, nowOut)
		}
		if len(in) != maxSamples-1 || len(out) != maxSamples-1 {
			t.Errorf("%d and %d rates, want %d", len(in), len(out), maxSamples-1)
		}
		g := newGraph(in, out)
		if !strings.HasPrefix(g.In, "0.0,0.0 ") || !strings.HasSuffix(g.In, " 600.0,0.0") || !strings.HasPrefix(g.Out, "0.0,99.0 ") || g.Top != "1.0 KB/s" {
			t.Errorf("graph %+v", g)
		}
	})
}

func TestARestartedCounterIsNoGoodput(t *testing.T) {
	var s samples
	s.add(sample{time.Unix(0, 0), 100, 100})
	s.add(sample{time.Unix(2, 0), 0, 0})
	s.add(sample{time.Unix(2, 0), 50, 0})
	if in, _, now, _ := s.rates(); in[0] != 0 || in[1] != 0 || now != 0 {
		t.Errorf("%v, %v", in, now)
	}
}

func TestSizesReadAsPeopleSayThem(t *testing.T) {
	for n, want := range map[float64]string{
		0: "0 B", 1: "1 B", 999: "999 B", 999.9: "1.0 KB", 1000: "1.0 KB", 1500: "1.5 KB", 9940: "9.9 KB", 12345: "12 KB",
		2e6: "2.0 MB", 1234567: "1.2 MB", 999.4e6: "999 MB", 3.21e9: "3.2 GB", 5e12: "5.0 TB", 5e15: "5000 TB",
	} {
		if got := size(n); got != want {
			t.Errorf("size(%v) = %q, want %q", n, got, want)
		}
	}
}

func FuzzHost(f *testing.F) {
	for _, h := range []string{"127.0.0.1:9090", "[::1]:9090", "localhost:9090", "evil.example:9090", "[", "]:9090", "::1:9090"} {
		f.Add(h)
	}
	f.Fuzz(func(t *testing.T, host string) {
		if !isOurs(host, port) {
			return
		}
		name, p, err := net.SplitHostPort(host)
		if err != nil || p != "9090" || !strings.EqualFold(name, "localhost") && !net.ParseIP(name).IsLoopback() {
			t.Errorf("%q is taken for this computer's", host)
		}
	})
}
