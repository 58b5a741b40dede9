// Package fault is why this program can't reach its network, in words for the
// person who can mend it: what is wrong, and what to do. An error carries a
// *Fault from where the cause is known up to a page, a log or a terminal.
// Not here: who shows it, whom it concerns.
package fault

import (
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Cause names a kind of fault for programs. The names are part of /status.json:
// they are added to, never changed.
type Cause string

// The causes.
const (
	NoNetwork   Cause = "no_network"      // this computer has no route
	NoIPv6      Cause = "no_ipv6"         // this computer has no route of IPv6
	Source      Cause = "wrong_source"    // the address to dial from is not this computer's
	Blocked     Cause = "blocked"         // this system forbids the connection
	NoSockets   Cause = "no_sockets"      // this system gives no more sockets
	Refused     Cause = "refused"         // nothing listens at the address
	Unreachable Cause = "unreachable"     // the network says that there is no way
	Timeout     Cause = "timeout"         // no answer
	Silent      Cause = "silent"          // a link on which nothing came any more
	Closed      Cause = "closed"          // the other side closed the connection
	Foreign     Cause = "not_shoal"       // something else answers
	Version     Cause = "version"         // another version of the protocol
	WrongKey    Cause = "wrong_key"       // another key than expected
	Busy        Cause = "busy"            // the other side is full
	Hop         Cause = "hop"             // a relay on the way refused the circuit
	LastHop     Cause = "last_hop"        // the relay before it can't reach it
	Clock       Cause = "clock"           // this computer's clock is wrong
	Private     Cause = "private_address" // an address that this network may not use
	NoViews     Cause = "no_views"        // too few lists of relays, or too old ones
	NoRelays    Cause = "too_few_relays"  // the lists leave no path
	NoTracker   Cause = "no_tracker"      // no tracker answers
	NoGuard     Cause = "no_guard"        // no guard can be reached
	Starting    Cause = "starting"        // nothing has been tried yet
	Other       Cause = "other"
)

// Fault is one cause in words.
type Fault struct {
	Cause  Cause
	Advice string // what to do, in whole sentences; "" for nothing
	Err    error  // below it, or nil. Its text is not part of the fault's: it may hold an address

	text string
}

// who stands in a fault's text and advice for the other side.
const who = "{who}"

// New returns a fault. text is a sentence without its full stop, advice is whole
// sentences or nothing; in both {who} stands for the other side, see About.
func New(c Cause, text, advice string, err error) *Fault {
	return &Fault{Cause: c, Advice: advice, Err: err, text: text}
}

// Error implements error.
func (f *Fault) Error() string { return strings.ReplaceAll(f.text, who, "the other side") }

// Unwrap returns what is below f.
func (f *Fault) Unwrap() error { return f.Err }

// Text returns what is wrong as a sentence; "" for nil.
func (f *Fault) Text() string {
	if f == nil {
		return ""
	}
	return Sentence(f.Error())
}

// Sentence makes s, an error's text, begin with a capital and end with a full
// stop; nothing stays nothing.
func Sentence(s string) string {
	if s == "" {
		return ""
	}
	first, size := utf8.DecodeRuneInString(s)
	return string(unicode.ToUpper(first)) + strings.TrimSuffix(s[size:], ".") + "."
}

// About is Of for a reader to whom the other side is name: "the guard". Whom a
// fault names already it keeps.
func About(err error, name string) *Fault {
	f := Of(err)
	if f == nil {
		return nil
	}
	g := *f
	g.text, g.Advice = strings.ReplaceAll(f.text, who, name), strings.ReplaceAll(f.Advice, who, name)
	return &g
}

// Of returns the fault that err carries, or one that says no more than err
// does; nil for nil.
func Of(err error) *Fault {
	if err == nil {
		return nil
	}
	if f, ok := errors.AsType[*Fault](err); ok {
		return f
	}
	return New(Other, err.Error(), "", err)
}

// Here reports whether the fault lies with this computer alone, so that trying
// another relay is no use.
func Here(err error) bool {
	f := Of(err)
	if f == nil {
		return false
	}
	switch f.Cause {
	case NoNetwork, Source, Blocked, NoSockets, Clock:
		return true
	}
	return false
}

// ClockOff is a clock that differs from the other side's: ahead says by how
// much this computer's is ahead of it, and is below 0 when it is behind.
func ClockOff(ahead time.Duration, err error) *Fault {
	how := "ahead of"
	if ahead < 0 {
		ahead, how = -ahead, "behind"
	}
	if ahead >= 10*time.Minute {
		ahead = ahead.Round(time.Minute)
	}
	return New(Clock, fmt.Sprintf("this computer's clock is %s %s that of %s", Span(ahead), how, who),
		"Set the clock and have it kept right, on Linux with timedatectl set-ntp true. Shoal goes on by itself.", err)
}

// Span returns d as people say it, in at most two units.
func Span(d time.Duration) string {
	units := []struct {
		name string
		size time.Duration
	}{{"day", 24 * time.Hour}, {"h", time.Hour}, {"min", time.Minute}, {"s", time.Second}}
	for i, u := range units {
		if d < u.size && u.name != "s" {
			continue
		}
		out := amount(d/u.size, u.name)
		if i+1 < len(units) {
			next := units[i+1]
			if rest := d % u.size / next.size; rest > 0 {
				out += " " + amount(rest, next.name)
			}
		}
		return out
	}
	panic("fault: seconds are a unit")
}

func amount(n time.Duration, unit string) string {
	if unit == "day" && n != 1 {
		unit = "days"
	}
	return fmt.Sprintf("%d %s", n, unit)
}
