package state

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"syscall"
)

// Error is a file of the state folder that could not be read or written.
type Error struct {
	What string // e.g. "the guards"
	File string
	Op   string // "read" or "write"
	Err  error  // why
	Lost string // what is lost without the file; "" when nothing is
	Do   string // what to do about it
}

// Error returns all of it in one line.
func (e *Error) Error() string {
	s := fmt.Sprintf("cannot %s %s, %s: %v", e.Op, e.What, e.File, e.Err)
	if e.Lost != "" {
		s += ". Without this file " + e.Lost
	}
	if e.Do != "" {
		s += ". " + e.Do
	}
	return s
}

// Unwrap returns the reason.
func (e *Error) Unwrap() error { return e.Err }

// maxAside is how many damaged copies of one file are kept.
const maxAside = 8

// unusable applies k's policy to the file at path, which can't be used.
func (k *Kind) unusable(path string, why error) error {
	e := &Error{What: k.What, File: path, Op: "read", Err: cause(why), Lost: k.Lost}
	var unread unreadable
	var bad damaged
	if !errors.As(why, &unread) && !errors.As(why, &bad) && isSystem(why) {
		e.Lost, e.Do = "", remedy(why) // e.g. too many open files: nothing is wrong with this one
		return e
	}
	if k.Policy == Keep {
		if e.Do = remedy(why); e.Do == "" {
			e.Do = "Restore it from a copy, or remove it to accept that"
		}
		return e
	}
	erase := k.Policy == Erase && !errors.As(why, &unread)
	kept, err := setAside(path, erase)
	if err != nil {
		e.Err, e.Do = fmt.Errorf("%w; moving it out of the way failed: %w", e.Err, cause(err)), "Remove it"
		return e
	}
	slog.Warn("a damaged state file was replaced", "file", path, "why", e.Err, "kept", kept, "lost", k.Lost)
	return nil
}

// isSystem reports whether the operating system refused something, rather than
// a parser.
func isSystem(err error) bool {
	var p *fs.PathError
	return errors.As(err, &p)
}

// setAside renames the file at path to the first free name beside it, which it
// returns. It removes the file instead when told to, or when all names are taken.
func setAside(path string, erase bool) (kept string, err error) {
	for i := 1; i <= maxAside && !erase; i++ {
		kept := fmt.Sprintf("%s.damaged-%d", path, i)
		if _, err := os.Lstat(kept); errors.Is(err, fs.ErrNotExist) {
			return kept, os.Rename(path, kept)
		}
	}
	return "", os.Remove(path)
}

// cause returns err without the name of the file, which an Error has anyway.
func cause(err error) error {
	var p *fs.PathError
	var l *os.LinkError
	switch {
	case errors.As(err, &p):
		return p.Err
	case errors.As(err, &l):
		return l.Err
	}
	return err
}

// remedy returns what to do about an error of the operating system.
func remedy(err error) string {
	switch {
	case diskFull(err):
		return "Free some space on that disk"
	case readOnly(err):
		return "That file system is read-only: name another folder with --state"
	case errors.Is(err, syscall.ENOTDIR):
		return "Name another folder with --state"
	case errors.Is(err, fs.ErrPermission):
		return "Make the folder and its files yours, or name another folder with --state"
	}
	return ""
}
