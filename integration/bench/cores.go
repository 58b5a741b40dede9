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
	const one, two, apart = "one link on one core", "two links on two cores", "two processes, a link and a core each"
	carried := func(row string, links int, on ...string) (float64, error) {
		rate, used, err := b.relaysOn(ctx, links, on)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", row, err)
		}
		s.add(row, "carried", "MB/s", rate)
		s.add(row, "CPU of the relay", "s/GB", used)
		return rate, nil
	}
	for range b.rounds {
		// What a machine gives to each core changes within seconds, so that the ones
		// compared are of one round, and both cores count.
		first, err := carried(one, 1, "0")
		if err != nil {
			return err
		}
		both, err := carried(two, 2, "0,1")
		if err != nil {
			return err
		}
		second, err := carried(one, 1, "1")
		if err != nil {
			return err
		}
		unshared, err := carried(apart, 1, "0", "1")
		if err != nil {
			return err
		}
		s.add(two, "of one on one", "", both/((first+second)/2))
		s.add(apart, "of one on one", "", unshared/((first+second)/2))
	}
	ratio, _ := s.median(two, "of one on one")
	s.atLeast(two+", of one on one", ratio, 1.7, "")
	most, _ := s.median(apart, "of one on one")
	s.note("two processes that share nothing carry %.2f times what one does", most)
	return nil
}

// relaysOn runs a relay for each of on, the cores that it and its ends may use, at
// the same time, and returns the sum of MB/s, and the seconds of CPU that a relay
// uses for a GB.
func (b *bench) relaysOn(ctx context.Context, links int, on []string) (rate, used float64, err error) {
	var all sync.WaitGroup
	rates, costs, errs := make([]float64, len(on)), make([]float64, len(on)), make([]error, len(on))
	for i, on := range on {
		all.Go(func() { rates[i], costs[i], errs[i] = b.relayOn(ctx, links, on) })
	}
	all.Wait()
	for i := range on {
		rate += rates[i]
		used += costs[i] / float64(len(on))
	}
	return rate, used, errors.Join(errs...)
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
