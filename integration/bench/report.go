package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

// Report is everything that one run has measured.
type Report struct {
	Started  time.Time
	Machine  string // processor, cores, kernel
	Programs []string
	Quick    bool // one short round each: shows that it runs, measures little
	Sections []*Section

	file string
}

// Section is what one suite has measured.
type Section struct {
	Name    string
	Title   string
	Figures []*Figure
	Checks  []Check
	Notes   []string

	told func(row string) // who waits hears what has been measured; nil: nobody
	last string           // row
}

// Figure is one thing measured in several rounds.
type Figure struct {
	Row, Column      string // where it stands in the table
	Unit             string
	Rounds           []float64 // in their order
	Median, Min, Max float64
}

// Check compares a figure, or a ratio of two, with what the project has set itself.
type Check struct {
	What  string
	Got   float64
	Bound string // "at most" or "at least"
	Want  float64
	Unit  string // "" for a ratio
	OK    bool
}

// newReport starts the report of a run, whose file is in the folder dir.
func newReport(dir string, quick bool) (*Report, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	// What lies there is of one machine and one run: nobody should commit it.
	if err := os.WriteFile(filepath.Join(dir, ".gitignore"), []byte("*\n"), 0o644); err != nil {
		return nil, err
	}
	now := time.Now()
	return &Report{
		Started: now, Machine: machine(), Programs: []string{runtime.Version()}, Quick: quick,
		file: filepath.Join(dir, now.UTC().Format("20060102T150405Z")+".json"),
	}, nil
}

// machine describes this computer as far as speed goes.
func machine() string {
	model := runtime.GOARCH
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(b)) {
			if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == "model name" {
				model = strings.TrimSpace(value)
				break
			}
		}
	}
	kernel, _ := os.ReadFile("/proc/sys/kernel/osrelease") // "" elsewhere
	return fmt.Sprintf("%s, %d cores, %s %s", model, runtime.NumCPU(), runtime.GOOS, strings.TrimSpace(string(kernel)))
}

// load is how busy the machine is with other things, in processes.
func load() string {
	b, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	first, _, _ := strings.Cut(string(b), " ")
	return first
}

func (r *Report) section(name, title string) *Section {
	s := &Section{Name: name, Title: title}
	r.Sections = append(r.Sections, s)
	began := time.Now()
	s.told = func(row string) {
		fmt.Fprintf(os.Stderr, "%s: %s (%v)\n", name, row, time.Since(began).Round(time.Second))
	}
	return s
}

// save writes all that there is so far.
func (r *Report) save() error {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(r.file, append(b, '\n'), 0o644)
}

// add notes one round's value of a figure.
func (s *Section) add(row, column, unit string, value float64) {
	if row != s.last && s.told != nil {
		s.told(row)
	}
	s.last = row
	f := s.get(row, column)
	if f == nil {
		f = &Figure{Row: row, Column: column, Unit: unit}
		s.Figures = append(s.Figures, f)
	}
	f.Rounds = append(f.Rounds, value)
	sorted := slices.Sorted(slices.Values(f.Rounds))
	n := len(sorted)
	f.Median, f.Min, f.Max = (sorted[(n-1)/2]+sorted[n/2])/2, sorted[0], sorted[n-1]
}

func (s *Section) get(row, column string) *Figure {
	for _, f := range s.Figures {
		if f.Row == row && f.Column == column {
			return f
		}
	}
	return nil
}

// median returns a figure's median, and false when it was not measured.
func (s *Section) median(row, column string) (float64, bool) {
	f := s.get(row, column)
	if f == nil {
		return 0, false
	}
	return f.Median, true
}

func (s *Section) note(format string, args ...any) {
	s.Notes = append(s.Notes, fmt.Sprintf(format, args...))
}

func (s *Section) atMost(what string, got, want float64, unit string) {
	s.Checks = append(s.Checks, Check{what, got, "at most", want, unit, got <= want})
}

func (s *Section) atLeast(what string, got, want float64, unit string) {
	s.Checks = append(s.Checks, Check{what, got, "at least", want, unit, got >= want})
}

// print writes the section as a table.
func (s *Section) print(w io.Writer) {
	fmt.Fprintf(w, "\n%s: %s\n", s.Name, s.Title)
	var rows, columns []string
	units := make(map[string]string)
	for _, f := range s.Figures {
		if !slices.Contains(rows, f.Row) {
			rows = append(rows, f.Row)
		}
		if !slices.Contains(columns, f.Column) {
			columns = append(columns, f.Column)
			units[f.Column] = f.Unit
		}
	}
	t := tabwriter.NewWriter(w, 2, 0, 3, ' ', 0)
	for _, c := range columns {
		fmt.Fprintf(t, "\t%s", c)
		if units[c] != "" {
			fmt.Fprintf(t, ", %s", units[c])
		}
	}
	if len(columns) > 0 {
		fmt.Fprintln(t)
	}
	for _, r := range rows {
		fmt.Fprint(t, "  ", r)
		for _, c := range columns {
			fmt.Fprint(t, "\t", s.get(r, c))
		}
		fmt.Fprintln(t)
	}
	t.Flush()
	t = tabwriter.NewWriter(w, 2, 0, 3, ' ', 0)
	for _, c := range s.Checks {
		word := "no"
		if c.OK {
			word = "ok"
		}
		fmt.Fprintf(t, "  %s\t%s\t%s\t(%s %s)\n", word, c.What, quantity(c.Got, c.Unit), c.Bound, quantity(c.Want, c.Unit))
	}
	t.Flush()
	for _, n := range s.Notes {
		fmt.Fprintln(w, "  note:", n)
	}
}

// String returns the median, and between which values it lies.
func (f *Figure) String() string {
	switch {
	case f == nil:
		return "-"
	case len(f.Rounds) == 1:
		return number(f.Median)
	}
	return fmt.Sprintf("%s (%s..%s)", number(f.Median), number(f.Min), number(f.Max))
}

func quantity(v float64, unit string) string {
	if unit == "" {
		return strconv.FormatFloat(v, 'f', 2, 64)
	}
	return number(v) + " " + unit
}

// number writes three digits, or all before the point.
func number(v float64) string {
	switch {
	case v >= 100 || v == 0:
		return strconv.FormatFloat(v, 'f', 0, 64)
	case v >= 10:
		return strconv.FormatFloat(v, 'f', 1, 64)
	}
	return strconv.FormatFloat(v, 'f', 2, 64)
}

// percentile returns the p-th of 100 parts of sorted values.
func percentile(sorted []float64, p int) float64 {
	return sorted[min(len(sorted)*p/100, len(sorted)-1)]
}

// millis returns durations as milliseconds, sorted.
func millis(ds []time.Duration) []float64 {
	out := make([]float64, len(ds))
	for i, d := range ds {
		out[i] = ms(d)
	}
	slices.Sort(out)
	return out
}

func ms(d time.Duration) float64 { return d.Seconds() * 1e3 }
