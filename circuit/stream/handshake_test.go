package stream

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

func TestHandshakeGivesBothSidesTheSameKeys(t *testing.T) {
	sa, err := GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	sb, err := GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	i, msg1, err := Initiate(sa, sb.Public(), []byte("p"), 42)
	if err != nil {
		t.Fatal(err)
	}
	b, msg2, remote, counter, err := Respond(sb, []byte("p"), msg1)
	if err != nil {
		t.Fatal(err)
	}
	if remote != sa.Public() || counter != 42 {
		t.Errorf("opened by %x with counter %d, want %x with 42", remote, counter, sa.Public())
	}
	a, err := i.Finish(msg2)
	if err != nil {
		t.Fatal(err)
	}
	if a.seal != b.open || a.open != b.seal || a.seal == a.open {
		t.Error("keys don't match")
	}
	if !a.initiator || b.initiator {
		t.Error("both sides think they are the same one")
	}
	if len(msg1) != Message1Size || len(msg2) != Message2Size || Message1Size != 1288 || Message2Size != 1136 {
		t.Errorf("messages of %d and %d bytes", len(msg1), len(msg2))
	}
}

func TestEveryHandshakeHasItsOwnKeys(t *testing.T) {
	a, _ := keyPair(t)
	b, _ := keyPair(t)
	if a.seal == b.seal || a.open == b.open {
		t.Error("two handshakes of the same two gave one key")
	}
}

func TestRespondRefusesEveryPrefix(t *testing.T) {
	f := newFixed()
	_, msg1 := f.initiate(t)
	for n := range msg1 {
		if _, _, _, _, err := f.respond(msg1[:n]); err == nil {
			t.Errorf("accepted %d of %d bytes", n, len(msg1))
		}
	}
	if _, _, _, _, err := f.respond(append(msg1, 0)); err == nil {
		t.Error("accepted one byte more")
	}
}

func TestFinishRefusesEveryPrefix(t *testing.T) {
	f := newFixed()
	i, msg1 := f.initiate(t)
	_, msg2, _, _, err := f.respond(msg1)
	if err != nil {
		t.Fatal(err)
	}
	for n := range msg2 {
		if _, err := i.Finish(msg2[:n]); err == nil {
			t.Errorf("accepted %d of %d bytes", n, len(msg2))
		}
	}
	if _, err := i.Finish(append(msg2, 0)); err == nil {
		t.Error("accepted one byte more")
	}
	if _, err := i.Finish(msg2); err != nil {
		t.Errorf("refused the whole message: %v", err)
	}
}

func TestHandshakeRefusesEveryChangedByte(t *testing.T) {
	f := newFixed()
	_, msg1 := f.initiate(t)
	_, msg2, _, _, err := f.respond(msg1)
	if err != nil {
		t.Fatal(err)
	}
	for n := 0; n < len(msg1); n += 7 {
		bad := bytes.Clone(msg1)
		bad[n] ^= 1
		if _, _, _, _, err := f.respond(bad); err == nil {
			t.Errorf("message 1 accepted with byte %d changed", n)
		}
	}
	for n := 0; n < len(msg2); n += 7 {
		i, _ := f.initiate(t)
		bad := bytes.Clone(msg2)
		bad[n] ^= 1
		if _, err := i.Finish(bad); err == nil {
			t.Errorf("message 2 accepted with byte %d changed", n)
		}
	}
}

func TestHandshakeRefusesAnotherPrologueOrKey(t *testing.T) {
	f := newFixed()
	_, msg1 := f.initiate(t)
	for at := range f.prologue {
		g := newFixed()
		g.prologue[at] ^= 1
		if at%11 != 0 {
			continue
		}
		if _, _, _, _, err := g.respond(msg1); err == nil {
			t.Errorf("accepted with byte %d of the prologue changed", at)
		}
	}
	g := newFixed()
	g.responder[5] ^= 1
	if _, _, _, _, err := g.respond(msg1); err == nil {
		t.Error("accepted by another static key")
	}
	// Whoever answers without the key that the opener asked for is refused.
	other := newFixed()
	other.responder[5] ^= 1
	_, toOther := other.initiate(t)
	_, msg2, _, _, err := other.respond(toOther)
	if err != nil {
		t.Fatal(err)
	}
	i, _ := f.initiate(t)
	if _, err := i.Finish(msg2); err == nil {
		t.Error("the opener accepted an answer by another key")
	}
}

func TestHandshakeRefusesAKeyOfLowOrder(t *testing.T) {
	f := newFixed()
	_, msg1 := f.initiate(t)
	clear(msg1[:32])
	if _, _, _, _, err := f.respond(msg1); err == nil {
		t.Error("accepted an ephemeral key of zeros")
	}
	if _, _, err := Initiate(f.initiator, [32]byte{}, nil, 1); err == nil {
		t.Error("began a stream to a key of zeros")
	}
}

func TestMessage1ReplayedGivesKeysThatNobodyElseHas(t *testing.T) {
	f := newFixed()
	i, msg1 := f.initiate(t)
	first, msg2, _, _, err := Respond(f.responder, f.prologue, msg1)
	if err != nil {
		t.Fatal(err)
	}
	second, _, _, _, err := Respond(f.responder, f.prologue, msg1)
	if err != nil {
		t.Fatal(err)
	}
	a, err := i.Finish(msg2)
	if err != nil {
		t.Fatal(err)
	}
	if a.seal != first.open || a.seal == second.open {
		t.Error("a replay shares keys with the stream it was taken from")
	}
}

func TestPrivateKeysStayOutOfLogs(t *testing.T) {
	k, err := GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	slog.New(slog.NewTextHandler(&b, nil)).Info("x", "key", k)
	fmt.Fprintf(&b, "%v %+v %#v %s", k, k, k, k)
	if want := 5; strings.Count(b.String(), "(private key)") != want {
		t.Errorf("logged %q", b.String())
	}
}

func FuzzRespond(f *testing.F) {
	x := newFixed()
	_, msg1 := x.initiate(f)
	f.Add(msg1)
	f.Add(msg1[:Message1Size-1])
	f.Add(make([]byte, Message1Size))
	f.Add(fields(f, "handshake.txt")["message-2"])
	f.Fuzz(func(t *testing.T, b []byte) {
		k, msg2, _, _, err := x.respond(b)
		if (err == nil) != bytes.Equal(b, msg1) {
			t.Errorf("Respond: %v", err)
		}
		if err != nil && (k != nil || msg2 != nil) {
			t.Error("refused, and answered")
		}
	})
}

func FuzzFinish(f *testing.F) {
	x := newFixed()
	_, msg1 := x.initiate(f)
	_, msg2, _, _, err := x.respond(msg1)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(msg2)
	f.Add(msg2[:Message2Size-1])
	f.Add(make([]byte, Message2Size))
	f.Add(msg1)
	f.Fuzz(func(t *testing.T, b []byte) {
		i, _ := x.initiate(t)
		if _, err := i.Finish(b); (err == nil) != bytes.Equal(b, msg2) {
			t.Errorf("Finish: %v", err)
		}
	})
}

func BenchmarkHandshake(b *testing.B) {
	sa, sb := PrivateKey{1}, PrivateKey{2}
	remote := sb.Public()
	b.Run("initiate", func(b *testing.B) {
		for b.Loop() {
			if _, _, err := Initiate(sa, remote, nil, 1); err != nil {
				b.Fatal(err)
			}
		}
	})
	_, msg1, err := Initiate(sa, remote, nil, 1)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("respond", func(b *testing.B) {
		for b.Loop() {
			if _, _, _, _, err := Respond(sb, nil, msg1); err != nil {
				b.Fatal(err)
			}
		}
	})
}
