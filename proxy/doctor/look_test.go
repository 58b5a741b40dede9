package doctor

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"github.com/shoal-p2p/shoal/proxy/setup"
	"github.com/shoal-p2p/shoal/proxy/status"
)

// page serves a status page.
func page(t *testing.T, body any) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/status.json" {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		json.NewEncoder(w).Encode(body)
	}))
	t.Cleanup(server.Close)
	return server.URL
}

// proxy answers what is sent to it with some bytes.
func proxy(t *testing.T, answer string) netip.AddrPort {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			var b [4]byte
			conn.Read(b[:])
			conn.Write([]byte(answer))
			conn.Close()
		}
	}()
	return netip.MustParseAddrPort(ln.Addr().String())
}

func TestTheSidecarIsLookedAt(t *testing.T) {
	ready := status.Status{Ready: true, Circuits: []status.Circuit{}}
	notReady := status.Status{Why: "too few relays\x1b[2J", Circuits: []status.Circuit{}}
	for _, c := range []struct {
		name   string
		answer string
		page   any
		want   Sidecar
	}{
		{"ready", "\x05\x00", ready, Sidecar{Answer: setup.Served, Page: true, Ready: true}},
		{"ready, with a password", "\x05\x02", ready, Sidecar{Answer: setup.Served, Page: true, Ready: true}},
		{"not ready", "\x05\x00", notReady, Sidecar{Answer: setup.Served, Page: true, Why: "too few relays [2J"}},
		{"a page of another program", "\x05\x00", map[string]any{"ready": true}, Sidecar{Answer: setup.Served}},
		{"no JSON", "\x05\x00", "ready", Sidecar{Answer: setup.Served}},
		{"no SOCKS", "HTTP/1.1 400", ready, Sidecar{Answer: setup.Foreign, Page: true, Ready: true}},
		{"hangs up", "", ready, Sidecar{Answer: setup.Foreign, Page: true, Ready: true}},
	} {
		c.want.SOCKS = proxy(t, c.answer)
		if got := sidecar(t.Context(), Config{SOCKS: c.want.SOCKS, Status: page(t, c.page)}, nil); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: got %+v, want %+v", c.name, got, c.want)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if got := sidecar(ctx, Config{SOCKS: socks, Status: "http://127.0.0.1:1"}, nil); !reflect.DeepEqual(got, Sidecar{SOCKS: socks}) {
		t.Errorf("nobody there: %+v", got)
	}
}

func TestWhatAPageSaysIsCut(t *testing.T) {
	if got := plain(strings.Repeat("é", 1000)); len([]rune(got)) != maxWhy+1 {
		t.Errorf("%d characters", len([]rune(got)))
	}
}
