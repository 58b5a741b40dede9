package program

import (
	"strings"
	"testing"
)

func TestRatesAreReadInTheirUsualForms(t *testing.T) {
	for s, want := range map[string]uint64{
		"10MB": 10_000_000, "10MB/s": 10_000_000, "10 MB": 10_000_000, "800KB": 800_000, "800kB": 800_000, "1GB": 1_000_000_000,
		"12.5MB": 12_500_000, "10Mbit": 1_250_000, "10mbit": 1_250_000, "10MBit/s": 1_250_000, "1Gbit": 125_000_000, "800kbit": 100_000,
		"10MiB": 10 << 20, "64KiB": 64 << 10, "1gib/s": 1 << 30, " 10MB ": 10_000_000, "10KB": 10_000, "1000GB": 1_000_000_000_000,
	} {
		if got, err := ParseRate(s); err != nil || got != want {
			t.Errorf("ParseRate(%q) = %d, %v, want %d", s, got, err, want)
		}
	}
}

func TestOtherRatesAreRefusedWithExamples(t *testing.T) {
	for s, want := range map[string]string{
		"":                                    "e.g. 10MB, 80Mbit",
		"fast":                                "e.g. 10MB, 80Mbit",
		"MB":                                  "e.g. 10MB, 80Mbit",
		"-1MB":                                "e.g. 10MB, 80Mbit",
		"1e3MB":                               "e.g. 10MB, 80Mbit",
		"0x10MB":                              "e.g. 10MB, 80Mbit",
		"NaNMB":                               "e.g. 10MB, 80Mbit",
		"10,5MB":                              "e.g. 10MB, 80Mbit",
		"10MB/min":                            "e.g. 10MB, 80Mbit",
		"10Mbps":                              "unknown unit Mbps, e.g. 10MB, 80Mbit",
		"10TB":                                "unknown unit TB",
		"1000000":                             "has no unit, e.g. 10MB, 80Mbit",
		"10/s":                                "has no unit",
		"10Mb":                                "write 10Mbit for bits, or 10MB for bytes",
		"10kb/s":                              "write 10kbit for bits, or 10kB for bytes",
		"9KB":                                 "outside of 10KB to 1000GB",
		"0MB":                                 "outside of 10KB to 1000GB",
		"1001GB":                              "outside of 10KB to 1000GB",
		"1" + strings.Repeat("0", 400) + "GB": "outside of 10KB to 1000GB",
	} {
		if got, err := ParseRate(s); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("ParseRate(%q) = %d, %v, want %q in it", s, got, err, want)
		}
	}
}

func FuzzParseRate(f *testing.F) {
	for _, s := range []string{"10MB", "1.5Gbit/s", "9", "1Kb"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if n, err := ParseRate(s); err == nil && (n < minRate || n > maxRate) {
			t.Errorf("ParseRate(%q) = %d", s, n)
		}
	})
}
