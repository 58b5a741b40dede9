package main

import (
	"fmt"
	"net"
	"strconv"
	"time"

	"github.com/shoal-p2p/shoal/integration/bench/child"
	"github.com/shoal-p2p/shoal/integration/bench/meter"
	"github.com/shoal-p2p/shoal/integration/bench/peer"
)

// ends are the two processes at the ends of every path.
type ends struct {
	source, sink *child.Child
	addr         string // where the source listens
	port         uint16
}

func startEnds(dir string) (e *ends, err error) {
	e = new(ends)
	defer func() {
		if err != nil {
			e.stop()
		}
	}()
	if e.source, err = child.Start("source", dir); err != nil {
		return e, err
	}
	if e.sink, err = child.Start("sink", dir); err != nil {
		return e, err
	}
	if err := e.source.Call("Peer.Listen", "127.0.0.1:0", &e.addr); err != nil {
		return e, err
	}
	_, port, err := net.SplitHostPort(e.addr)
	if err != nil {
		return e, err
	}
	n, err := strconv.ParseUint(port, 10, 16)
	e.port = uint16(n)
	return e, err
}

func (e *ends) stop() {
	for _, c := range []*child.Child{e.source, e.sink} {
		if c != nil {
			c.Stop()
		}
	}
}

func (e *ends) ask(o peer.Ask) (a peer.Asked, err error) {
	err = e.sink.Call("Peer.Ask", o, &a)
	return a, err
}

func (e *ends) pull(o peer.Pull) (p peer.Pulled, err error) {
	err = e.sink.Call("Peer.Pull", o, &p)
	return p, err
}

// cost is what one transfer took.
type cost struct {
	bytes int64
	time  time.Duration
	cpu   map[string]time.Duration // by part of the path
}

// rate returns MB/s.
func (c cost) rate() float64 { return float64(c.bytes) / 1e6 / c.time.Seconds() }

// perGB returns the CPU seconds of all parts for a gigabyte, 1e9 bytes.
func (c cost) perGB() float64 {
	var sum time.Duration
	for _, t := range c.cpu {
		sum += t
	}
	return sum.Seconds() / (float64(c.bytes) / 1e9)
}

// partPerGB returns those of one part.
func (c cost) partPerGB(part string) float64 {
	return c.cpu[part].Seconds() / (float64(c.bytes) / 1e9)
}

// settle is how long processes have to finish what a transfer left them to do.
const settle = 200 * time.Millisecond

// measure pulls, and counts what every process of the path used meanwhile,
// both ends included.
func (e *ends) measure(o peer.Pull, parts map[string][]int) (c cost, err error) {
	all := map[string][]int{"source": {e.source.PID()}, "sink": {e.sink.PID()}}
	for name, pids := range parts {
		all[name] = pids
	}
	before, err := usage(all)
	if err != nil {
		return c, err
	}
	p, err := e.pull(o)
	if err != nil {
		return c, err
	}
	time.Sleep(settle)
	after, err := usage(all)
	if err != nil {
		return c, err
	}
	c = cost{bytes: p.Bytes(), time: p.Time(), cpu: make(map[string]time.Duration)}
	for name := range all {
		c.cpu[name] = after[name] - before[name]
	}
	if c.time <= 0 {
		return c, fmt.Errorf("%d bytes came all at once: too few to measure", c.bytes)
	}
	return c, nil
}

func usage(parts map[string][]int) (map[string]time.Duration, error) {
	used := make(map[string]time.Duration)
	for name, pids := range parts {
		t, err := meter.CPU(pids...)
		if err != nil {
			return nil, err
		}
		used[name] = t
	}
	return used, nil
}
