package scrub

import (
	"errors"

	"github.com/anacrolix/torrent/bencode"
)

// maxDepth is how deep lists and dictionaries may nest. Clients use three.
const maxDepth = 16

var errBencode = errors.New("scrub: not a dictionary in bencode")

// eachField calls f for every entry of the dictionary that b begins with, and
// returns its length. Values are checked for their extent only and parse on
// their own (integer, eachField), so that one which is odd costs no other:
// clients forgive such, and order, too. Nothing is sized by what b claims.
func eachField(b []byte, f func(key string, value []byte)) (n int, err error) {
	if len(b) == 0 || b[0] != 'd' {
		return 0, errBencode
	}
	n = 1
	for {
		if n >= len(b) {
			return 0, errBencode
		}
		if b[n] == 'e' {
			return n + 1, nil
		}
		text, size := text(b[n:])
		if size == 0 {
			return 0, errBencode
		}
		n += size
		if size = extent(b[n:], 1); size == 0 {
			return 0, errBencode
		}
		f(string(text), b[n:n+size])
		n += size
	}
}

// extent returns the length of the value that b begins with, 0 when it is none.
func extent(b []byte, depth int) int {
	if len(b) == 0 || depth > maxDepth {
		return 0
	}
	switch b[0] {
	case 'i':
		n := 1
		if n < len(b) && b[n] == '-' {
			n++
		}
		digits := n
		for n < len(b) && isDigit(b[n]) {
			n++
		}
		if n == digits || n == len(b) || b[n] != 'e' {
			return 0
		}
		return n + 1
	case 'l', 'd':
		n := 1
		for i := 0; n < len(b) && b[n] != 'e'; i++ {
			if b[0] == 'd' && i%2 == 0 && !isDigit(b[n]) {
				return 0
			}
			size := extent(b[n:], depth+1)
			if size == 0 {
				return 0
			}
			n += size
		}
		if n == len(b) {
			return 0
		}
		return n + 1
	}
	_, size := text(b)
	return size
}

// text returns the string that b begins with and its length in b, 0 when it is none.
func text(b []byte) (s []byte, size int) {
	n, length := 0, 0
	for n < len(b) && isDigit(b[n]) {
		length = 10*length + int(b[n]-'0')
		n++
		if length > len(b) {
			return nil, 0
		}
	}
	if n == 0 || n == len(b) || b[n] != ':' || length > len(b)-n-1 {
		return nil, 0
	}
	n++
	return b[n : n+length], n + length
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// integer reads value, which extent has measured, as an integer.
func integer(value []byte) (n int64, ok bool) {
	return n, value[0] == 'i' && bencode.Unmarshal(value, &n) == nil
}
