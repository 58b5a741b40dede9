package stream

// queue holds what arrived and was not read yet, in the records it arrived in.
type queue struct {
	ring  []chunk // its length is a power of two
	first int
	count int
}

// chunk is the unread data of one record. Its capacity goes to the end of the
// record's room for data.
type chunk struct {
	data   []byte
	record Owned
}

// keepRing is the longest ring, in chunks, that an empty queue keeps.
const keepRing = 256

func (q *queue) empty() bool { return q.count == 0 }

// push takes data and its record, and reports whether it keeps the record.
// Small data is copied behind the last chunk instead, so that a far side that
// sends a byte per record doesn't make each of them cost a record's memory:
// two neighbours in the queue always hold more than MaxData together.
func (q *queue) push(data []byte, record Owned) (kept bool) {
	if q.count > 0 {
		last := q.at(q.count - 1)
		if len(data) <= cap(last.data)-len(last.data) {
			last.data = append(last.data, data...)
			return false
		}
	}
	if q.count == len(q.ring) {
		q.grow()
	}
	*q.at(q.count) = chunk{data, record}
	q.count++
	return true
}

// read copies to p from the first chunk. When that is read to its end it is
// dropped, and its record is returned for the caller to free.
func (q *queue) read(p []byte) (n int, done Owned) {
	c := q.at(0)
	n = copy(p, c.data)
	if n < len(c.data) {
		c.data = c.data[n:]
		return n, nil
	}
	return n, q.pop()
}

// pop drops the first chunk and returns its record.
func (q *queue) pop() Owned {
	c := q.at(0)
	record := c.record
	*c = chunk{}
	q.first = (q.first + 1) & (len(q.ring) - 1)
	q.count--
	if q.count == 0 && len(q.ring) > keepRing {
		q.ring, q.first = nil, 0
	}
	return record
}

func (q *queue) at(i int) *chunk { return &q.ring[(q.first+i)&(len(q.ring)-1)] }

func (q *queue) grow() {
	ring := make([]chunk, max(4, 2*len(q.ring)))
	for i := range q.count {
		ring[i] = *q.at(i)
	}
	q.ring, q.first = ring, 0
}
