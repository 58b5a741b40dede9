package integration

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"time"

	"github.com/shoal-p2p/shoal/integration/process"
)

// server is a command that goes on until it is stopped.
type server struct {
	command *regexp.Regexp

	// works returns nil once the reader sees what the command is for. found are
	// the submatches of command.
	works func(ctx context.Context, r *reader, c *typed, found []string) error
}

// servers are all that the pages name. A command that is none of these has to
// end by itself.
var servers = []server{
	{regexp.MustCompile(`^(?:bin/)?shoal proxy\b`), func(ctx context.Context, r *reader, _ *typed, _ []string) error {
		return r.get(ctx, "http://127.0.0.1:1081/readyz")
	}},
	{regexp.MustCompile(`^(?:bin/)?shoal relay\b`), func(_ context.Context, _ *reader, c *typed, _ []string) error {
		return c.prints("is reachable from outside")
	}},
	{regexp.MustCompile(`^(?:bin/)?shoal-tracker\b`), func(_ context.Context, _ *reader, c *typed, _ []string) error {
		return c.prints(`(?m)^shoal1[a-z2-7]+$`)
	}},
	{regexp.MustCompile(`^(?:bin/)?shoal run\b.*--publish (\d+)\b`), func(ctx context.Context, r *reader, _ *typed, found []string) error {
		return r.get(ctx, "http://127.0.0.1:"+found[1])
	}},
	{regexp.MustCompile(`^(?:bin/)?shoal testnet\b`), func(_ context.Context, _ *reader, c *typed, _ []string) error {
		return c.prints(`"socks":"127\.0\.0\.1:\d+"`)
	}},
}

// comesUp waits until a command has ended, or is a server that works.
func (r *reader) comesUp(ctx context.Context, c *typed) error {
	var last error
	err := process.Until(ctx, 50*time.Millisecond, func() (bool, error) {
		select {
		case <-c.process.Gone():
			last = nil
			return true, nil
		default:
		}
		for _, s := range servers {
			if found := s.command.FindStringSubmatch(c.line); found != nil {
				last = s.works(ctx, r, c, found)
				return last == nil, last
			}
		}
		return false, fmt.Errorf("it has not ended, and the test knows no server like it: see servers")
	})
	if err != nil {
		return err
	}
	select {
	case <-c.process.Gone():
		if code := c.process.ExitCode(); code != 0 {
			return fmt.Errorf("exit code %d", code)
		}
	default:
	}
	return nil
}

// prints reports whether the output so far has a match of pattern.
func (c *typed) prints(pattern string) error {
	if !regexp.MustCompile(pattern).MatchString(c.output()) {
		return fmt.Errorf("it prints nothing like %q", pattern)
	}
	return nil
}

// get reports whether a URL is answered with 200, seen from r's machine.
func (r *reader) get(ctx context.Context, url string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	response, err := r.host.HTTP().Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s: %s", url, response.Status, text)
	}
	return err
}
