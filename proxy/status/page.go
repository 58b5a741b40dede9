package status

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"fmt"
	"html/template"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

//go:embed page.html
var pageHTML string

//go:embed page.css
var pageCSS string

//go:embed page.js
var pageJS string

var page = template.Must(template.New("page").Parse(pageHTML))

// pageCSP allows the page's own style and script, by their hashes, and nothing else.
var pageCSP = "default-src 'none'; style-src " + cspHash(pageCSS) + "; script-src " + cspHash(pageJS) +
	"; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

func cspHash(s string) string {
	sum := sha256.Sum256([]byte(s))
	return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}

// view is what the page shows.
type view struct {
	Status
	CSS        template.CSS
	JS         template.JS
	Groups     []group
	RateIn     string
	RateOut    string
	TotalIn    string
	TotalOut   string
	Graph      graph
	Refusals   []refusal
	RefusedAll uint64
}

// refusal is one line of what was refused.
type refusal struct {
	Count uint64
	Text  string
}

func (s *Server) servePage(w http.ResponseWriter, r *http.Request) {
	var b bytes.Buffer
	if err := page.Execute(&b, s.view()); err != nil {
		panic(err) // the template fits a view
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Write(b.Bytes())
}

func (s *Server) view() view {
	st := s.status()
	in, out, nowIn, nowOut := s.samples.rates()
	v := view{
		Status:   st,
		CSS:      template.CSS(pageCSS),
		JS:       template.JS(pageJS),
		Groups:   groups(st.Circuits),
		RateIn:   size(nowIn) + "/s",
		RateOut:  size(nowOut) + "/s",
		TotalIn:  size(float64(st.BytesIn)),
		TotalOut: size(float64(st.BytesOut)),
		Graph:    newGraph(in, out),
	}
	for r := range Reason(reasons) {
		if n := st.Refused[r.String()]; n > 0 {
			v.Refusals = append(v.Refusals, refusal{n, r.Text()})
			v.RefusedAll += n
		}
	}
	slices.SortStableFunc(v.Refusals, func(a, b refusal) int { return cmp.Compare(b.Count, a.Count) })
	return v
}

// group is circuits that look the same.
type group struct {
	Circuit
	Count int
}

func (g group) hops() string { return strconv.Itoa(g.Hops) }

// For returns what the circuits are for, in words.
func (g group) For() string {
	switch g.Use {
	case "peer":
		return "To peers"
	case "inbound":
		return "Where peers find us"
	case "tracker":
		return "To trackers"
	}
	return g.Use
}

// Good says if the circuits carry traffic.
func (g group) Good() bool { return g.State == "open" }

// groups counts circuits, which are sorted.
func groups(circuits []Circuit) (out []group) {
	for _, c := range circuits {
		if n := len(out); n > 0 && out[n-1].Circuit == c {
			out[n-1].Count++
			continue
		}
		out = append(out, group{c, 1})
	}
	return out
}

// size returns n bytes as people read them.
func size(n float64) string {
	for _, unit := range []string{"B", "KB", "MB", "GB"} {
		if n < 999.5 {
			return number(n, unit)
		}
		n /= 1000
	}
	return number(n, "TB")
}

func number(n float64, unit string) string {
	if n < 9.95 && unit != "B" {
		return fmt.Sprintf("%.1f %s", n, unit)
	}
	return fmt.Sprintf("%.0f %s", n, unit)
}

// graph is the goodput of the last two minutes, as the points of two lines in
// a box of graphWidth by graphHeight.
type graph struct {
	In, Out string
	Top     string // what the upper edge means; empty when nothing moved
}

const (
	graphWidth  = 600
	graphHeight = 100
)

func newGraph(in, out []float64) graph {
	top := 0.0
	for _, v := range slices.Concat(in, out) {
		top = max(top, v)
	}
	if top == 0 {
		return graph{}
	}
	return graph{line(in, top), line(out, top), size(top) + "/s"}
}

// line puts the latest value at the right edge.
func line(values []float64, top float64) string {
	var b strings.Builder
	for i, v := range values {
		x := graphWidth - float64(len(values)-1-i)*graphWidth/(maxSamples-2)
		fmt.Fprintf(&b, "%.1f,%.1f ", x, graphHeight*(1-v/top))
	}
	return strings.TrimSpace(b.String())
}
