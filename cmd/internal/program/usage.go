package program

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
	"github.com/xrash/smetrics"
)

// AtMost refuses more than n arguments.
func AtMost(c *cli.Context, n int) error {
	if c.NArg() <= n {
		return nil
	}
	return Usagef("unexpected argument %q: see %s --help", c.Args().Get(n), c.Command.HelpName)
}

// The errors of packages flag and cli, which have no types.
var (
	unknownFlag  = regexp.MustCompile(`^flag provided but not defined: -(.*)$`)
	missingValue = regexp.MustCompile(`^flag needs an argument: -(.*)$`)
	badSyntax    = regexp.MustCompile(`^bad flag syntax: (.*)$`)
	badValue     = regexp.MustCompile(`^invalid (?:boolean )?value (".*") for (?:flag )?-([^:]+): `)
	twoNames     = regexp.MustCompile(`^Cannot use two forms of the same flag: (\S+) (\S+)$`)
)

// explainUsage words an error of the flag parser for the user.
func explainUsage(c *cli.Context, err error, _ bool) error {
	text := err.Error()
	if m := unknownFlag.FindStringSubmatch(text); m != nil {
		return unknown(c, m[1])
	}
	see := fmt.Sprintf(": see %s --help", c.Command.HelpName)
	if m := missingValue.FindStringSubmatch(text); m != nil {
		return Usagef("%s needs a value%s", dashed(m[1]), see)
	}
	if m := badSyntax.FindStringSubmatch(text); m != nil {
		return Usagef("%q is not a flag%s", m[1], see)
	}
	if m := badValue.FindStringSubmatch(text); m != nil {
		return Usagef("%s %s: want %s", dashed(m[2]), m[1], wanted(c.Command, m[2]))
	}
	if m := twoNames.FindStringSubmatch(text); m != nil {
		return Usagef("%s and %s are the same flag: use one of them", dashed(m[1]), dashed(m[2]))
	}
	return Usage(err)
}

// wanted returns what a flag's value must be.
func wanted(c *cli.Command, name string) string {
	for _, f := range c.Flags {
		if !slices.Contains(f.Names(), name) {
			continue
		}
		switch f.(type) {
		case *cli.IntFlag:
			return "a whole number"
		case *cli.DurationFlag:
			return "a duration with a unit, e.g. 90s or 10m"
		case *cli.BoolFlag:
			return fmt.Sprintf("no value, or =true or =false as in %s=false", dashed(name))
		}
	}
	return "another value"
}

// unknown returns the refusal of a flag that c's command does not have.
func unknown(c *cli.Context, name string) error {
	var others []string
	for _, other := range c.App.Commands {
		if other.HelpName != c.Command.HelpName && slices.Contains(flagNames(other.Flags), name) {
			others = append(others, other.HelpName)
		}
	}
	if len(others) > 0 && c.Command.HelpName == c.App.Name {
		return Usagef("%s goes after the command, as in %s %s", dashed(name), others[0], dashed(name))
	}
	if len(others) > 0 {
		return Usagef("unknown flag %s: it is a flag of %s", dashed(name), strings.Join(others, ", "))
	}
	if other, ok := closest(name, flagNames(c.Command.Flags)); ok {
		return Usagef("unknown flag %s: did you mean %s?", dashed(name), dashed(other))
	}
	return Usagef("unknown flag %s: see %s --help", dashed(name), c.Command.HelpName)
}

func flagNames(flags []cli.Flag) (out []string) {
	for _, f := range flags {
		out = append(out, f.Names()...)
	}
	return out
}

// unknownCommand returns the refusal of a command that parent does not have.
func unknownCommand(parent *cli.Command, name string) error {
	var names []string
	for _, c := range parent.Subcommands {
		names = append(names, c.Names()...)
	}
	if other, ok := closest(name, names); ok {
		return Usagef("unknown command %q: did you mean %s %s?", name, parent.HelpName, other)
	}
	return Usagef("unknown command %q: see %s --help", name, parent.HelpName)
}

// alike is how close a name must be to be suggested: from 0, nothing in common,
// to 1, equal.
const alike = 0.8

// closest returns the name that was probably meant, if any is close.
func closest(meant string, names []string) (best string, ok bool) {
	most := alike
	for _, name := range names {
		// The boost for a common prefix of up to four letters is the usual one.
		if d := smetrics.JaroWinkler(strings.ToLower(meant), name, 0.7, 4); d >= most && len(name) > 1 {
			best, most = name, d
		}
	}
	return best, best != ""
}

func dashed(name string) string {
	if len(name) == 1 {
		return "-" + name
	}
	return "--" + name
}

// Between refuses an int flag's value outside of least to most.
func Between(flag string, least, most int) func(*cli.Context, int) error {
	return func(_ *cli.Context, n int) error {
		if n < least || n > most {
			return Usagef("--%s %d: want %d to %d", flag, n, least, most)
		}
		return nil
	}
}

// DurationBetween refuses a duration flag's value outside of least to most.
func DurationBetween(flag string, least, most time.Duration) func(*cli.Context, time.Duration) error {
	return func(_ *cli.Context, d time.Duration) error {
		if d < least || d > most {
			return Usagef("--%s %v: want %v to %v", flag, d, least, most)
		}
		return nil
	}
}
