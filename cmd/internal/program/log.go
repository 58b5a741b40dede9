package program

import (
	"log/slog"
	"os"
	"strings"

	"github.com/urfave/cli/v2"
)

// LogFlags returns the flags that Logger reads. level is the least that is
// logged by default.
func LogFlags(level string) []cli.Flag {
	return []cli.Flag{
		&cli.BoolFlag{Name: "verbose", Usage: "log details too; the same as --log-level debug"},
		&cli.StringFlag{Name: "log-level", Usage: "least `LEVEL` to log: debug, info, warn or error", Value: level},
		&cli.StringFlag{Name: "log-format", Usage: "log `FORMAT` on stderr: text, or json with one object a line", Value: "text"},
	}
}

var levels = map[string]slog.Level{"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError}

// Logger returns the logger that the flags ask for, which also becomes the
// default one.
func Logger(c *cli.Context) (*slog.Logger, error) {
	level, ok := levels[strings.ToLower(c.String("log-level"))]
	switch {
	case !ok:
		return nil, Usagef("--log-level %q: want debug, info, warn or error", c.String("log-level"))
	case c.Bool("verbose") && c.IsSet("log-level") && level != slog.LevelDebug:
		return nil, Usagef("--verbose and --log-level %s contradict each other: use one of them", c.String("log-level"))
	case c.Bool("verbose"):
		level = slog.LevelDebug
	}
	options := &slog.HandlerOptions{Level: level}
	var h slog.Handler
	switch c.String("log-format") {
	case "text":
		h = slog.NewTextHandler(os.Stderr, options)
	case "json":
		h = slog.NewJSONHandler(os.Stderr, options)
	default:
		return nil, Usagef("--log-format %q: want text or json", c.String("log-format"))
	}
	l := slog.New(h)
	slog.SetDefault(l)
	return l, nil
}
