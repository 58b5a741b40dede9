package program

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/urfave/cli/v2"
)

// interrupted is the exit code of a program that a second SIGINT ends.
const interrupted = 128 + 2

// Stoppable wraps an action that runs until it is told to stop: its context
// ends at the first SIGINT, SIGTERM or, unless it was ignored from the start as
// under nohup, SIGHUP. A second SIGINT exits the process at once. A second
// signal of another kind does not: closing a terminal sends SIGHUP twice, and
// timeout(1) SIGTERM.
func Stoppable(action cli.ActionFunc) cli.ActionFunc {
	return func(c *cli.Context) error {
		ctx, stop := untilSignal(c.Context)
		defer stop()
		c.Context = ctx
		return action(c)
	}
}

func untilSignal(parent context.Context) (ctx context.Context, stop func()) {
	ctx, cancel := context.WithCancel(parent)
	signals := make(chan os.Signal, 4) // one of each kind, and another SIGINT
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	if !signal.Ignored(syscall.SIGHUP) {
		signal.Notify(signals, syscall.SIGHUP)
	}
	outliveReader()
	go func() {
		for s := range signals {
			if s == os.Interrupt && ctx.Err() != nil {
				fmt.Fprintln(os.Stderr, "interrupted again: exiting without saving")
				os.Exit(interrupted)
			}
			cancel()
		}
	}()
	return ctx, func() {
		signal.Stop(signals)
		close(signals)
		cancel()
	}
}
