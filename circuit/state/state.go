// Package state keeps the files of a state folder: the lock, replacing a file
// so that a crash leaves the old one or the new one, reading with a limit, and
// what happens to a file that is damaged.
// Not here: what the files hold (the packages that declare a Kind).
//
// A file is:
//
//	a line    "shoal NAME VERSION"
//	the body
//	a line    "sha256 HEX", the hash of all before
package state

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"strings"
)

// Policy is what happens to a file that can't be used.
type Policy uint8

const (
	// Cache: the file is renamed to NAME.damaged-N, and the program goes on
	// without it.
	Cache Policy = iota

	// Erase: like Cache, but a damaged file is removed. A copy of a secret, or
	// of what a secret opens, must not outlive its time.
	Erase

	// Keep: the file stays as it is and the program does not start. Only its
	// owner can decide what to do.
	Keep
)

// Kind is one kind of file. A package declares one for each file that it keeps.
type Kind struct {
	Name    string // in the file's first line; without spaces
	Version int    // of the body's layout
	Limit   int64  // of the body, bytes
	Policy  Policy

	What string // the words for it in messages, e.g. "the guards"
	Lost string // what is lost without it, a sentence, e.g. "new guards are drawn"
}

// trailer is the size of the last line.
const trailer = len("sha256 ") + 2*sha256.Size + 1

func (k *Kind) head() string { return fmt.Sprintf("shoal %s %d\n", k.Name, k.Version) }

// Load reads the file at path and calls parse with its body, which is whole:
// its checksum is right. It reports whether the file was there and parse
// accepted it. A file that can't be used meets k's Policy: with Cache and Erase
// that is logged and err is nil. Other errors are of type *Error.
func (k *Kind) Load(path string, parse func(body []byte) error) (found bool, err error) {
	return k.Scan(path, func(r io.Reader, size int64) error {
		b := make([]byte, size)
		if _, err := io.ReadFull(r, b); err != nil {
			return err
		}
		return parse(b)
	})
}

// Scan is Load for a body that is too large to hold in memory. What parse took
// from it before it returned an error is the caller's to discard.
func (k *Kind) Scan(path string, parse func(body io.Reader, size int64) error) (found bool, err error) {
	f, size, err := k.open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err == nil {
		err = parse(bufio.NewReaderSize(io.LimitReader(f, size), int(min(size+1, 1<<20))), size)
		f.Close()
	}
	if err != nil {
		return false, k.unusable(path, err)
	}
	return true, nil
}

// Save replaces the file at path. It is on the disk when Save returns nil.
func (k *Kind) Save(path string, body []byte) error {
	return k.SaveFrom(path, func(w io.Writer) error {
		_, err := w.Write(body)
		return err
	})
}

// SaveFrom is Save for a body that is too large to hold in memory. What write
// gets is buffered and keeps its first error.
func (k *Kind) SaveFrom(path string, write func(io.Writer) error) error {
	err := Replace(path, 0o600, func(f io.Writer) error {
		sum := sha256.New()
		io.WriteString(sum, k.head())
		body := counted{w: io.MultiWriter(f, sum)}
		if _, err := io.WriteString(f, k.head()); err != nil {
			return err
		}
		w := bufio.NewWriterSize(&body, 1<<16)
		if err := write(w); err != nil {
			return err
		}
		if err := w.Flush(); err != nil {
			return err
		}
		if body.n > k.Limit { // Load would refuse it
			return fmt.Errorf("%d bytes are too many, at most %d", body.n, k.Limit)
		}
		_, err := fmt.Fprintf(f, "sha256 %x\n", sum.Sum(nil))
		return err
	})
	if err != nil {
		return &Error{What: k.What, File: path, Op: "write", Err: cause(err), Do: remedy(err)}
	}
	return nil
}

// counted counts what is written through it.
type counted struct {
	w io.Writer
	n int64
}

func (c *counted) Write(b []byte) (int, error) {
	n, err := c.w.Write(b)
	c.n += int64(n)
	return n, err
}

// unreadable is an error of the system about a file that is there.
type unreadable struct{ error }

func (u unreadable) Unwrap() error { return u.error }

// damaged is an error about what a file holds.
type damaged struct{ error }

func (d damaged) Unwrap() error { return d.error }

// open verifies the whole file and returns it at the start of its body.
func (k *Kind) open(path string) (_ *os.File, size int64, err error) {
	f, info, err := openRegular(path)
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, errKind) {
		return nil, 0, unreadable{err}
	}
	if err != nil {
		return nil, 0, err
	}
	defer func() {
		if err != nil {
			f.Close()
		}
	}()
	head := k.head()
	size = info.Size() - int64(len(head)) - int64(trailer)
	switch {
	case info.Size() == 0:
		return nil, 0, damaged{errors.New("it is empty")}
	case size < 0:
		return nil, 0, damaged{fmt.Errorf("it is cut short, %d bytes", info.Size())}
	case size > k.Limit:
		return nil, 0, damaged{fmt.Errorf("it is too long, %d bytes", info.Size())}
	}
	if err := k.verify(f, size); err != nil {
		return nil, 0, err
	}
	if _, err := f.Seek(int64(len(head)), io.SeekStart); err != nil {
		return nil, 0, unreadable{err}
	}
	return f, size, nil
}

// verify reads the whole file and compares its first and last lines.
func (k *Kind) verify(f io.Reader, size int64) error {
	want := k.head()
	first, last := make([]byte, len(want)), make([]byte, trailer)
	sum := sha256.New()
	r := summed{f, sum}
	if _, err := io.ReadFull(r, first); err != nil {
		return unreadable{err}
	}
	if _, err := io.CopyN(io.Discard, r, size); err != nil {
		return unreadable{err}
	}
	wantSum := "sha256 " + hex.EncodeToString(sum.Sum(nil)) + "\n"
	if _, err := io.ReadFull(f, last); err != nil {
		return unreadable{err}
	}
	switch {
	case string(last) != wantSum:
		return damaged{errors.New("its checksum differs")}
	case string(first) != want:
		return damaged{fmt.Errorf("it is of another kind or version: %q, want %q", strings.TrimSpace(string(first)), strings.TrimSpace(want))}
	}
	return nil
}

// summed hashes what is read through it.
type summed struct {
	io.Reader
	sum hash.Hash
}

func (s summed) Read(b []byte) (int, error) {
	n, err := s.Reader.Read(b)
	s.sum.Write(b[:n])
	return n, err
}
