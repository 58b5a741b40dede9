// Package rencode reads and writes the messages of Deluge's daemon: values of
// Python in a binary form.
// Not here: what they say (package setup).
//
// A byte says what a value is; small values are in that byte too:
//
//	  0– 43  the number 0 to 43
//	     44  float, 8 bytes               66  float, 4 bytes
//	 48– 57  text: its length in decimal, ':', its bytes
//	     59  list up to a 127             60  dictionary up to a 127
//	     61  whole number in decimal up to a 127
//	 62– 65  whole number of 1, 2, 4, 8 bytes, big endian
//	 67, 68  true, false                  69  nothing
//	 70–101  the number -1 to -32
//	102–126  dictionary of 0 to 24 pairs
//	128–191  text of 0 to 63 bytes
//	192–255  list of 0 to 63 values
package rencode

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strconv"
)

const (
	kindFloat64 = 44
	kindList    = 59
	kindDict    = 60
	kindDecimal = 61
	kindInt1    = 62
	kindInt2    = 63
	kindInt4    = 64
	kindInt8    = 65
	kindFloat32 = 66
	kindTrue    = 67
	kindFalse   = 68
	kindNone    = 69
	kindEnd     = 127

	numbers      = 44 // small ones from 0 up
	negatives    = 70 // small ones from -1 down
	negativesEnd = 102
	dicts        = 102
	dictsEnd     = 127
	texts        = 128
	textsEnd     = 192
	lists        = 192
)

const (
	maxDepth  = 32
	maxDigits = 20 // of a number in decimal
)

// ErrMalformed is inside every error of Parse.
var ErrMalformed = errors.New("rencode: malformed")

// Append appends v: nil, bool, int64, float64, string, []any or map[string]any
// of these. Anything else is a mistake of the program.
func Append(b []byte, v any) []byte {
	switch v := v.(type) {
	case nil:
		return append(b, kindNone)
	case bool:
		if v {
			return append(b, kindTrue)
		}
		return append(b, kindFalse)
	case int64:
		return binary.BigEndian.AppendUint64(append(b, kindInt8), uint64(v))
	case float64:
		return binary.BigEndian.AppendUint64(append(b, kindFloat64), math.Float64bits(v))
	case string:
		if len(v) < textsEnd-texts {
			b = append(b, texts+byte(len(v)))
		} else {
			b = append(strconv.AppendInt(b, int64(len(v)), 10), ':')
		}
		return append(b, v...)
	case []any:
		b = append(b, kindList)
		for _, x := range v {
			b = Append(b, x)
		}
		return append(b, kindEnd)
	case map[string]any:
		b = append(b, kindDict)
		for k, x := range v {
			b = Append(Append(b, k), x)
		}
		return append(b, kindEnd)
	}
	panic(fmt.Sprintf("rencode: a value of type %T", v))
}

// Parse returns the one value that b is, of the types that Append takes. Keys
// of dictionaries that are no text become text.
func Parse(b []byte) (any, error) {
	v, rest, err := parse(b, 0)
	if err == nil && len(rest) > 0 {
		err = fmt.Errorf("%w: %d bytes too many", ErrMalformed, len(rest))
	}
	if err != nil {
		return nil, err
	}
	return v, nil
}

func parse(b []byte, depth int) (v any, rest []byte, err error) {
	if len(b) == 0 {
		return nil, nil, fmt.Errorf("%w: it ends too early", ErrMalformed)
	}
	if depth > maxDepth {
		return nil, nil, fmt.Errorf("%w: more than %d lists in lists", ErrMalformed, maxDepth)
	}
	kind, rest := b[0], b[1:]
	switch {
	case kind < numbers:
		return int64(kind), rest, nil
	case kind >= negatives && kind < negativesEnd:
		return -1 - int64(kind-negatives), rest, nil
	case kind >= dicts && kind < dictsEnd:
		return dict(list(rest, 2*int(kind-dicts), depth))
	case kind >= texts && kind < textsEnd:
		return text(rest, int(kind-texts))
	case kind >= lists:
		return list(rest, int(kind-lists), depth)
	case kind >= '0' && kind <= '9':
		end := bytes.IndexByte(b[:min(len(b), maxDigits)], ':')
		if end < 0 {
			return nil, nil, fmt.Errorf("%w: the length of a text without an end", ErrMalformed)
		}
		n, err := strconv.Atoi(string(b[:end]))
		if err != nil {
			return nil, nil, fmt.Errorf("%w: the length of a text", ErrMalformed)
		}
		return text(b[end+1:], n)
	}
	switch kind {
	case kindTrue, kindFalse:
		return kind == kindTrue, rest, nil
	case kindNone:
		return nil, rest, nil
	case kindList:
		return list(rest, -1, depth)
	case kindDict:
		return dict(list(rest, -1, depth))
	case kindDecimal:
		end := bytes.IndexByte(rest[:min(len(rest), maxDigits+1)], kindEnd)
		if end < 0 {
			return nil, nil, fmt.Errorf("%w: a number without an end", ErrMalformed)
		}
		n, err := strconv.ParseInt(string(rest[:end]), 10, 64)
		if err != nil {
			return nil, nil, fmt.Errorf("%w: a number", ErrMalformed)
		}
		return n, rest[end+1:], nil
	}
	return fixed(kind, rest)
}

// fixed reads a number of a fixed size.
func fixed(kind byte, b []byte) (v any, rest []byte, err error) {
	size := map[byte]int{kindInt1: 1, kindInt2: 2, kindInt4: 4, kindInt8: 8, kindFloat32: 4, kindFloat64: 8}[kind]
	if size == 0 || len(b) < size {
		return nil, nil, fmt.Errorf("%w: kind %d with %d bytes behind it", ErrMalformed, kind, len(b))
	}
	switch kind {
	case kindFloat32:
		return float64(math.Float32frombits(binary.BigEndian.Uint32(b))), b[size:], nil
	case kindFloat64:
		return math.Float64frombits(binary.BigEndian.Uint64(b)), b[size:], nil
	}
	n := int64(int8(b[0])) // the sign
	for _, x := range b[1:size] {
		n = n<<8 | int64(x)
	}
	return n, b[size:], nil
}

func text(b []byte, n int) (any, []byte, error) {
	if n < 0 || n > len(b) {
		return nil, nil, fmt.Errorf("%w: a text of %d bytes in %d", ErrMalformed, n, len(b))
	}
	return string(b[:n]), b[n:], nil
}

// list reads n values, or for -1 those up to the end mark.
func list(b []byte, n, depth int) (any, []byte, error) {
	all := []any{}
	for len(all) != n {
		if n < 0 && len(b) > 0 && b[0] == kindEnd {
			return all, b[1:], nil
		}
		v, rest, err := parse(b, depth+1)
		if err != nil {
			return nil, nil, err
		}
		all, b = append(all, v), rest
	}
	return all, b, nil
}

// dict makes a dictionary of a list of keys and values.
func dict(v any, rest []byte, err error) (any, []byte, error) {
	if err != nil {
		return nil, nil, err
	}
	all := v.([]any)
	if len(all)%2 != 0 {
		return nil, nil, fmt.Errorf("%w: a key without a value", ErrMalformed)
	}
	m := make(map[string]any, len(all)/2)
	for i := 0; i < len(all); i += 2 {
		m[fmt.Sprint(all[i])] = all[i+1]
	}
	return m, rest, nil
}
