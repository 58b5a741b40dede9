package program

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// The limits of a rate, bytes per second.
const (
	minRate = 1e4
	maxRate = 1e12
)

// rateForm is a number and its unit, with or without "per second".
var rateForm = regexp.MustCompile(`^([0-9]+(?:\.[0-9]+)?) *([A-Za-z]*?)(?:/s)?$`)

// rateUnits are what a rate's units stand for, bytes. Their case makes no
// difference, but for the bare b.
var rateUnits = map[string]float64{
	"kbit": 1e3 / 8, "mbit": 1e6 / 8, "gbit": 1e9 / 8,
	"kb": 1e3, "mb": 1e6, "gb": 1e9,
	"kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30,
}

const rateExamples = "e.g. 10MB, 80Mbit or 9.5MiB per second"

// ParseRate reads a rate and returns bytes per second.
func ParseRate(s string) (uint64, error) {
	m := rateForm.FindStringSubmatch(strings.TrimSpace(s))
	if m == nil {
		return 0, fmt.Errorf("%q is not a rate, %s", s, rateExamples)
	}
	number, unit := m[1], m[2]
	bytes, ok := rateUnits[strings.ToLower(unit)]
	switch {
	case unit == "":
		return 0, fmt.Errorf("%q has no unit, %s", s, rateExamples)
	case len(unit) == 2 && unit[1] == 'b' && ok: // bits to some, bytes to others
		return 0, fmt.Errorf("%q can mean two things: write %s%sbit for bits, or %[2]s%[3]sB for bytes", s, number, unit[:1])
	case !ok:
		return 0, fmt.Errorf("%q has the unknown unit %s, %s", s, unit, rateExamples)
	}
	n, err := strconv.ParseFloat(number, 64)
	if rate := n * bytes; err != nil || rate < minRate || rate > maxRate {
		return 0, fmt.Errorf("%q is outside of 10KB to 1000GB per second", s)
	}
	return uint64(n * bytes), nil
}
