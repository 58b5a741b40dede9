// Package program is what shoal and shoal-tracker share as programs: how they
// parse a command line, word a refusal, log, stop at a signal and exit.
// Not here: what the commands do.
package program

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/urfave/cli/v2"

	"github.com/shoal-p2p/shoal/cmd/internal/version"
)

// Error is an error with the code to exit with.
type Error struct {
	Code int
	Err  error
}

func (e *Error) Error() string { return e.Err.Error() }
func (e *Error) Unwrap() error { return e.Err }

// usageCode is the exit code of a command line that makes no sense.
const usageCode = 2

// Usage returns err as a usage error: exit code 2.
func Usage(err error) error { return &Error{usageCode, err} }

// Usagef returns a usage error: exit code 2.
func Usagef(format string, args ...any) error { return Usage(fmt.Errorf(format, args...)) }

// Main runs app with the process's arguments. It exits the process if that
// fails, with the code of an Error or with 1.
func Main(app *cli.App) {
	prepare(app)
	err := app.RunContext(context.Background(), os.Args)
	if err == nil {
		return
	}
	fmt.Fprintf(os.Stderr, "%s: %v\n", app.Name, err)
	code := 1
	if e, ok := errors.AsType[*Error](err); ok {
		code = e.Code
	}
	os.Exit(code)
}

// prepare gives app and each of its commands what they have in common.
func prepare(app *cli.App) {
	cli.VersionFlag = &cli.BoolFlag{Name: "version", Aliases: []string{"v"}, Usage: "print the version, commit and commit date", DisableDefaultText: true}
	cli.VersionPrinter = func(c *cli.Context) { printVersion(c) }
	app.Version = version.Full()
	app.HideHelpCommand = true
	app.ExitErrHandler = func(*cli.Context, error) {} // Main does it
	app.OnUsageError = explainUsage
	app.Commands = append(app.Commands, versionCommand(), helpCommand())
	app.Flags = append(slices.Clip(app.Flags), cli.HelpFlag) // which cli leaves out beside a help command
	quiet(app.Flags)
	if app.Action == nil {
		app.Action = noCommand
	} else {
		app.Action = checked(app.Action, app.ArgsUsage != "")
	}
	for _, c := range app.Commands {
		prepareCommand(c)
	}
}

// prepareCommand gives c and the commands below it what all have in common.
func prepareCommand(c *cli.Command) {
	c.OnUsageError = explainUsage
	c.HideHelpCommand = true
	c.Flags = append(slices.Clip(c.Flags), cli.VersionFlag)
	quiet(c.Flags)
	c.Action = checked(c.Action, c.ArgsUsage != "" || len(c.Subcommands) > 0)
	for _, sub := range c.Subcommands {
		prepareCommand(sub)
	}
}

// checked wraps an action: -v means the same everywhere, and a word that is no
// flag is refused, since the parser stops there and ignores all flags behind it.
func checked(action cli.ActionFunc, takesArguments bool) cli.ActionFunc {
	return func(c *cli.Context) error {
		if c.Bool("version") {
			printVersion(c)
			return nil
		}
		if !takesArguments {
			if err := AtMost(c, 0); err != nil {
				return err
			}
		}
		if len(c.Command.Subcommands) > 0 && c.Args().Present() {
			return unknownCommand(c.Command, c.Args().First())
		}
		return action(c)
	}
}

// quiet leaves "(default: false)" out of the help.
func quiet(flags []cli.Flag) {
	for _, f := range flags {
		if b, ok := f.(*cli.BoolFlag); ok && b.DefaultText == "" {
			b.DisableDefaultText = true
		}
	}
}

func printVersion(c *cli.Context) {
	fmt.Fprintln(c.App.Writer, c.App.Name, c.App.Version)
}

func versionCommand() *cli.Command {
	return &cli.Command{
		Name:  "version",
		Usage: "print the version, commit and commit date",
		Action: func(c *cli.Context) error {
			printVersion(c)
			return nil
		},
	}
}

func helpCommand() *cli.Command {
	return &cli.Command{
		Name:      "help",
		Usage:     "print help about a command",
		ArgsUsage: "[COMMAND]",
		Action: func(c *cli.Context) error {
			parent := c.Lineage()[1]
			at := parent.Command
			for _, name := range c.Args().Slice() {
				next := at.Command(name)
				if next == nil {
					return unknownCommand(at, name)
				}
				at = next
			}
			if at == parent.Command {
				return cli.ShowAppHelp(c)
			}
			// By its own --help, which knows where it is.
			return c.App.RunContext(c.Context, append(append([]string{c.App.Name}, c.Args().Slice()...), "--help"))
		},
	}
}

// noCommand is the action of an app that has commands only.
func noCommand(c *cli.Context) error {
	if c.Args().Present() {
		return unknownCommand(c.Command, c.Args().First())
	}
	return cli.ShowAppHelp(c)
}
