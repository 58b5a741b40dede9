package stream

import (
	"io"
	"sync"
)

// A copy between a stream and a client moves up to bufferSize bytes at a time:
// whole records, since 32 KiB at a time would leave the ninth cell nearly empty.
const bufferSize = maxRead * MaxData

var buffers = sync.Pool{New: func() any { return new([bufferSize]byte) }}

// WriteTo copies the stream to w until its end. While there is nothing to copy
// it holds no buffer: most streams are idle most of the time.
func (c *Conn) WriteTo(w io.Writer) (n int64, err error) {
	for {
		c.mu.Lock()
		err := c.waitData(true)
		c.mu.Unlock()
		if err == nil {
			var k int
			k, err = c.copyOnce(w)
			n += int64(k)
		}
		if err == io.EOF {
			return n, nil
		}
		if err != nil {
			return n, err
		}
	}
}

func (c *Conn) copyOnce(w io.Writer) (n int, err error) {
	b := buffers.Get().(*[bufferSize]byte)
	defer buffers.Put(b)
	k, err := c.Read(b[:])
	if err != nil {
		return 0, err
	}
	n, err = w.Write(b[:k])
	if err == nil && n < k {
		err = io.ErrShortWrite
	}
	return n, err
}

// ReadFrom copies r to the stream until its end, in whole records while r has
// that much. While r has little it holds a buffer of one record.
func (c *Conn) ReadFrom(r io.Reader) (n int64, err error) {
	small := make([]byte, MaxData)
	b := small
	var large *[bufferSize]byte
	defer func() {
		if large != nil {
			buffers.Put(large)
		}
	}()
	for {
		k, err := r.Read(b)
		if k > 0 {
			m, err := c.Write(b[:k])
			n += int64(m)
			if err != nil {
				return n, err
			}
		}
		if err == io.EOF {
			return n, nil
		}
		if err != nil {
			return n, err
		}
		switch {
		case large == nil && k == len(b):
			large = buffers.Get().(*[bufferSize]byte)
			b = large[:]
		case large != nil && k <= MaxData:
			buffers.Put(large)
			large, b = nil, small
		}
	}
}
