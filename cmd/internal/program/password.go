package program

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/urfave/cli/v2"
)

// maxPassword is the longest password that SOCKS can carry, bytes (RFC 1929).
const maxPassword = 255

// PasswordFile returns the password in the file that a flag names, "" if the
// flag is not set.
func PasswordFile(c *cli.Context, flag string) (string, error) {
	name := c.String(flag)
	if name == "" {
		return "", nil
	}
	fail := func(err error) (string, error) {
		if p, ok := errors.AsType[*fs.PathError](err); ok {
			err = p.Err
		}
		return "", fmt.Errorf("--%s %s: %w", flag, name, err)
	}
	f, err := os.Open(name)
	if err != nil {
		return fail(err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxPassword+3)) // and the end of a line
	if err != nil {
		return fail(err)
	}
	p := strings.TrimSpace(string(b))
	switch {
	case p == "":
		return fail(errors.New("the file is empty: write the password into it"))
	case len(p) > maxPassword:
		return fail(fmt.Errorf("the password is longer than %d bytes", maxPassword))
	case strings.ContainsAny(p, "\r\n"):
		return fail(errors.New("the file has more than one line: write the password alone into it"))
	}
	return p, nil
}
