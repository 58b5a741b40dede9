package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"runtime"
	"strconv"
	"sync"
)

// cores has a relay pass cells on with one core and with two, and beside that two
// relays that share nothing, a core each: what the machine gives to anybody.
func cores(ctx context.Context, b *bench) error {
	if runtime.NumCPU() < 2 {
		return errors.New("this machine has one core")
	}
	s := b.report.section("cores", "cells through a relay; the ends of each link are a process that stays on one core")
	for range b.rounds {
		for _, m := range []struct {
			row   string
			links int
			on    []string // what cores each process may use
		}{
			{"one link on one core", 1, []string{"0"}},
			{"two links on two cores", 2, []string{"0,1"}},
			{"two processes, a link and a core each", 1, []string{"0", "1"}},
		} {
			var all sync.WaitGroup
			rates, used, errs := make([]float64, len(m.on)), make([]float64, len(m.on)), make([]error, len(m.on))
			for i, on := range m.on {
				all.Go(func() { rates[i], used[i], errs[i] = b.relayOn(ctx, m.links, on) })
			}
			all.Wait()
			if err := errors.Join(errs...); err != nil {
				return fmt.Errorf("%s: %w", m.row, err)
			}
			sum := 0.0
			for i := range rates {
				sum += rates[i]
				s.add(m.row, "CPU of the relay", "s/GB", used[i])
			}
			s.add(m.row, "carried", "MB/s", sum)
		}
	}
	one, _ := s.median("one link on one core", "carried")
	two, _ := s.median("two links on two cores", "carried")
	apart, _ := s.median("two processes, a link and a core each", "carried")
	s.atLeast("two links on two cores, of one on one", two/one, 1.7, "")
	s.note("two processes that share nothing carry %.2f times what one does", apart/one)
	return nil
}

// relayOn runs BenchmarkRelayCores of package link on the cores given, and returns
// MB/s, and the relay's seconds of CPU for a GB.
func (b *bench) relayOn(ctx context.Context, links int, on string) (rate, used float64, err error) {
	said, err := b.relayBench(ctx, fmt.Sprintf("RelayCores/links=%d$", links), on, links)
	return said["MB/s"], said["relay-cpu-s/GB"], err
}

// measured is a figure of a benchmark's line, and its unit.
var measured = regexp.MustCompile(`\s([0-9.]+) ([A-Za-z][A-Za-z0-9/-]*)`)

// relayBench runs a benchmark of package link on the cores given, with so many
// threads for its relay, and returns the figures by their units.
func (b *bench) relayBench(ctx context.Context, name, on string, threads int) (map[string]float64, error) {
	length := "3s"
	if b.quick {
		length = "300ms"
	}
	cmd := exec.CommandContext(ctx, "taskset", "-c", on, b.link, "-test.run", "^$",
		"-test.bench", name, "-test.cpu", strconv.Itoa(threads), "-test.benchtime", length)
	var out, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &stderr
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("%w: %s%s", err, out.Bytes(), stderr.Bytes())
	}
	said := make(map[string]float64)
	for _, m := range measured.FindAllSubmatch(out.Bytes(), -1) {
		v, err := strconv.ParseFloat(string(m[1]), 64)
		if err != nil {
			return nil, err
		}
		said[string(m[2])] = v
	}
	if said["MB/s"] == 0 {
		return nil, fmt.Errorf("no rate in what the benchmark says: %s", out.Bytes())
	}
	return said, nil
}
