package inbound

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-p2p/shoal/proxy/swarm"
)

// TestLineGoesOverToAnotherStream: all that was said is said again, and the
// reader, who waits, hears the other stream alone.
func TestLineGoesOverToAnotherStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, farA := pipe(0)
		b, farB := pipe(0)
		l := newLine(a)
		heard := 0
		l.onHeard = func() { heard++ }
		l.Write([]byte("one "))
		l.Write([]byte("two"))
		got := make(chan string)
		go func() {
			buf := make([]byte, 100)
			n, _ := l.Read(buf)
			got <- string(buf[:n])
		}()
		synctest.Wait()
		if !l.swap(b) {
			t.Fatal("it did not")
		}
		farA.Write([]byte("too late"))
		l.Write([]byte(" three"))
		farB.Write([]byte("answer"))
		if s := <-got; s != "answer" || heard != 1 {
			t.Errorf("heard %q, %d times", s, heard)
		}
		if err := errors.Join(expect(farA, []byte("one two")), expectEnd(farA), expect(farB, []byte("one two three"))); err != nil {
			t.Error(err)
		}
		c, _ := pipe(0)
		if l.swap(c) {
			t.Error("it went over after an answer")
		}
		l.Close()
		if err := expectEnd(farB); err != nil {
			t.Error(err)
		}
	})
}

func TestLineThatFailsUnansweredTakesTheSpare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, farA := pipe(0)
		b, farB := pipe(0)
		l := newLine(a)
		spares := []swarm.Conn{b}
		l.spare = func() (s swarm.Conn) {
			if len(spares) > 0 {
				s, spares = spares[0], nil
			}
			return s
		}
		l.Write([]byte("hello"))
		farA.Close()
		farB.Write([]byte("answer"))
		if err := errors.Join(expect(l, []byte("answer")), expect(farB, []byte("hello"))); err != nil {
			t.Error(err)
		}
		farB.Close()
		if _, err := l.Read(make([]byte, 1)); err == nil {
			t.Error("a stream that was answered has another")
		}
	})
}

func TestLineThatFailsUnansweredWaitsForAnother(t *testing.T) {
	for _, comes := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			a, farA := pipe(0)
			b, farB := pipe(0)
			l := newLine(a)
			l.wait = 5 * time.Second
			l.SetReadDeadline(time.Now().Add(time.Hour))
			farA.Close()
			began := time.Now()
			wrote := make(chan error, 1)
			go func() {
				_, err := l.Write([]byte("hello"))
				wrote <- err
			}()
			if comes {
				time.AfterFunc(3*time.Second, func() { l.swap(b) })
				farB.Write([]byte("answer"))
				if err := errors.Join(<-wrote, expect(l, []byte("answer")), expect(farB, []byte("hello"))); err != nil {
					t.Error(err)
				}
				return
			}
			if _, err := l.Read(make([]byte, 1)); err != io.EOF {
				t.Errorf("Read = %v", err)
			}
			if err := <-wrote; err == nil {
				t.Error("what nobody heard was written")
			}
			if took := time.Since(began); took < 5*time.Second || took > 6*time.Second {
				t.Errorf("it gave up after %v", took)
			}
		})
	}
}

func TestLineKeepsOnlySoMuchUnanswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, far := pipe(0)
		l := newLine(a)
		l.Write(make([]byte, maxSaid))
		l.SetWriteDeadline(time.Now().Add(time.Second))
		if _, err := l.Write([]byte{1}); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("Write = %v, want a deadline", err)
		}
		l.SetDeadline(time.Time{})
		go func() {
			far.Write([]byte("answer"))
			l.Read(make([]byte, 100))
		}()
		if _, err := l.Write(make([]byte, 10*maxSaid)); err != nil {
			t.Error(err)
		}
		if len(l.said) != 0 {
			t.Errorf("%d bytes are kept", len(l.said))
		}
		b, _ := pipe(0)
		l = newLine(b)
		l.Write(make([]byte, maxSaid))
		time.AfterFunc(time.Second, func() { l.Close() })
		if _, err := l.Write([]byte{1}); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Write = %v, want closed", err)
		}
		if l.LocalAddr() == nil || l.RemoteAddr() == nil {
			t.Error("no addresses")
		}
	})
}

func TestLineRemembersItsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, _ := pipe(0)
		b, farB := pipe(0)
		l := newLine(a)
		l.Write([]byte("hello"))
		l.CloseWrite()
		l.swap(b)
		if got, err := io.ReadAll(farB); err != nil || !bytes.Equal(got, []byte("hello")) {
			t.Errorf("heard %q, %v", got, err)
		}
	})
}
