package fault

import (
	"errors"
	"fmt"
	"testing"
	"time"
)

func TestAFaultIsFoundInWhateverWrapsIt(t *testing.T) {
	below := errors.New("dial tcp 192.0.2.1:9000: connection refused")
	f := New(Refused, "{who} refuses connections", "Ask.", below)
	err := fmt.Errorf("circuit: first hop: %w", errors.Join(errors.New("other"), f))
	got := Of(err)
	if got != f || !errors.Is(err, below) {
		t.Errorf("Of(%v) = %v", err, got)
	}
	if s := About(err, "the guard").Text(); s != "The guard refuses connections." {
		t.Errorf("Text = %q", s)
	}
	if s := About(About(err, "the guard"), "the tracker").Text(); s != "The guard refuses connections." {
		t.Errorf("Text = %q", s)
	}
	if s := got.Error(); s != "the other side refuses connections" {
		t.Errorf("Error = %q: nobody's address belongs there", s)
	}
	if Of(nil) != nil || About(nil, "the guard") != nil {
		t.Error("a fault of no error")
	}
	if got := Of(errors.New("something odd.")); got.Cause != Other || got.Text() != "Something odd." {
		t.Errorf("an error without a fault: %q, %q", got.Cause, got.Text())
	}
}

func TestSentences(t *testing.T) {
	for s, want := range map[string]string{"": "", "set the clock": "Set the clock.", "ändern.": "Ändern.", "Done.": "Done."} {
		if got := Sentence(s); got != want {
			t.Errorf("Sentence(%q) = %q, want %q", s, got, want)
		}
	}
}

func TestSpansReadAsPeopleSayThem(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0 s", time.Second: "1 s", 59*time.Second + 900*time.Millisecond: "59 s", time.Minute: "1 min", 90 * time.Second: "1 min 30 s",
		2*time.Hour + 10*time.Minute + 5*time.Second: "2 h 10 min", time.Hour: "1 h", 24 * time.Hour: "1 day", 50 * time.Hour: "2 days 2 h",
		400 * 24 * time.Hour: "400 days",
	} {
		if got := Span(d); got != want {
			t.Errorf("Span(%v) = %q, want %q", d, got, want)
		}
	}
}

func TestAClockIsAheadOrBehind(t *testing.T) {
	if s := About(ClockOff(2*time.Hour, nil), "the guard").Text(); s != "This computer's clock is 2 h ahead of that of the guard." {
		t.Error(s)
	}
	if s := About(ClockOff(-time.Minute, nil), "the trackers").Text(); s != "This computer's clock is 1 min behind that of the trackers." {
		t.Error(s)
	}
}
