package proxy

import "errors"

// ErrInUse is what New returns when another sidecar uses the state folder:
// two would overwrite each other's guards.
var ErrInUse = errors.New("another sidecar is using this state folder")
