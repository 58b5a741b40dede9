package cell

import "sync"

var pool = sync.Pool{New: func() any { return new(Frame) }}

// NewFrame returns a frame whose bytes are arbitrary. The caller owns it.
func NewFrame() *Frame { return pool.Get().(*Frame) }

// Free gives f back; the caller owns it no more.
func (f *Frame) Free() { pool.Put(f) }
