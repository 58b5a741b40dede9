package status

import (
	"encoding/json"
	"net/http"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// handler serves the page for a listener on port.
func (s *Server) handler(port uint16) http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collector{s})

	// GET patterns take HEAD too; other methods are answered 405.
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", s.servePage)
	mux.HandleFunc("GET /status.json", s.serveJSON)
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{DisableCompression: true}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, r *http.Request) { text(w, http.StatusOK, "ok\n") })
	mux.HandleFunc("GET /readyz", s.serveReady)

	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		for _, kv := range headers {
			h.Set(kv[0], kv[1])
		}
		if !isOurs(r.Host, port) {
			s.counters.Add(ForeignHost)
			text(w, http.StatusForbidden, "This page is only served under this computer's own address.\n")
			return
		}
		mux.ServeHTTP(w, r)
	})
}

// headers go with every answer: no other page may read, frame or remember it.
var headers = [][2]string{
	{"Content-Security-Policy", pageCSP},
	{"Cross-Origin-Opener-Policy", "same-origin"},
	{"Cross-Origin-Resource-Policy", "same-origin"},
	{"X-Content-Type-Options", "nosniff"},
	{"X-Frame-Options", "DENY"},
	{"Referrer-Policy", "no-referrer"},
	{"Cache-Control", "no-store"},
}

func text(w http.ResponseWriter, code int, body string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(code)
	w.Write([]byte(body))
}

func (s *Server) serveJSON(w http.ResponseWriter, r *http.Request) {
	b, err := json.Marshal(s.status())
	if err != nil {
		panic(err) // a Status always marshals
	}
	w.Header().Set("Content-Type", "application/json")
	w.Write(append(b, '\n'))
}

func (s *Server) serveReady(w http.ResponseWriter, r *http.Request) {
	st := s.source.Status()
	if st.Ready {
		text(w, http.StatusOK, "ready\n")
		return
	}
	text(w, http.StatusServiceUnavailable, strings.TrimSpace("not ready: "+st.Why+" "+st.Advice)+"\n")
}
