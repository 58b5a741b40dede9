//go:build !linux

package demo

import (
	"context"
	"errors"
)

// Run needs Linux: the clients run in a network namespace, so that they talk to
// nobody else.
func Run(ctx context.Context, c Config) (code int, err error) {
	return 1, errors.New("the demo needs Linux, for its network namespaces")
}
