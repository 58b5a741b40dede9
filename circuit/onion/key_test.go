package onion

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

func TestIDSurvivesItsText(t *testing.T) {
	id := ID{1, 2, 3, 0xff, 31: 0xfe}
	got, err := ParseID(id.String())
	if err != nil || got != id {
		t.Errorf("ParseID(%s) = %v, %v", id, got, err)
	}
	if len(id.Short()) != 8 || !strings.HasPrefix(id.String(), id.Short()) {
		t.Errorf("Short() = %s of %s", id.Short(), id)
	}
}

func TestParseIDRefusesWhatStringDoesNotWrite(t *testing.T) {
	good := ID{1, 2, 3}.String()
	for i := range len(good) {
		if _, err := ParseID(good[:i]); err == nil {
			t.Errorf("accepted %q", good[:i])
		}
	}
	for _, s := range []string{good + "A", good + "=", good[:42] + "B", "\n" + good, good + "\n", strings.Repeat("+", 43), strings.Repeat("é", 43)} {
		if _, err := ParseID(s); err == nil {
			t.Errorf("accepted %q", s)
		}
	}
}

func TestLogsShowNoWholeIdentityAndNoSecret(t *testing.T) {
	key, err := ParsePrivateKey(bytes.Repeat([]byte{0xab}, PrivateKeySize), 3)
	if err != nil {
		t.Fatal(err)
	}
	id := ID{0xab, 0xab}
	var b bytes.Buffer
	slog.New(slog.NewTextHandler(&b, nil)).Info("x", "id", id, "key", key)
	fmt.Fprintf(&b, "%v %+v %#v %s", key, key, key, key)
	for _, secret := range []string{id.String(), fmt.Sprintf("%x", key.Bytes()), fmt.Sprint(key.Bytes()), "171, 171", "0xab"} {
		if strings.Contains(b.String(), secret) {
			t.Errorf("%q shows %q", b.String(), secret)
		}
	}
	if !strings.Contains(b.String(), id.Short()) {
		t.Errorf("%q lacks %q", b.String(), id.Short())
	}
}

func TestLogsShowNothingOfACircuit(t *testing.T) {
	relays := newRelays(t, 2)
	create, p, err := Wrap(hopsOf(relays), testStep, nil)
	if err != nil {
		t.Fatal(err)
	}
	pending := fmt.Sprintf("%v %+v", p, p)
	c, err := p.Finish(carry(t, relays, create))
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	l, x := relays[0].layer, relays[0].peeled
	for _, h := range []slog.Handler{slog.NewTextHandler(&b, nil), slog.NewJSONHandler(&b, nil)} {
		slog.New(h).Info("x", "circuit", c, "layer", l, "pending", p, "peeled", x)
	}
	fmt.Fprintf(&b, "%s %v %+v %v %+v %v %+v", pending, c, c, l, l, x, x)
	if b.Len() > 1000 {
		t.Errorf("that is too much: %s", b.String())
	}
}

func TestKeysSurviveTheirBytes(t *testing.T) {
	key, err := GenerateKey(200)
	if err != nil {
		t.Fatal(err)
	}
	again, err := ParsePrivateKey(key.Bytes(), 200)
	if err != nil || again.Public() != key.Public() {
		t.Errorf("private key: %v", err)
	}
	public, err := ParsePublicKey(key.Public().Bytes(), 200)
	if err != nil || public != key.Public() || public.Number() != 200 || public.IsZero() {
		t.Errorf("public key: %v", err)
	}
	if !(PublicKey{}).IsZero() {
		t.Error("the zero key is a key")
	}
	for i := range key.Bytes() {
		if _, err := ParsePrivateKey(key.Bytes()[:i], 200); err == nil {
			t.Errorf("accepted %d bytes of a private key", i)
		}
	}
	for i := range key.Public().Bytes() {
		if _, err := ParsePublicKey(key.Public().Bytes()[:i], 200); err == nil {
			t.Errorf("accepted %d bytes of a public key", i)
		}
	}
	if _, err := ParsePublicKey(bytes.Repeat([]byte{0xff}, PublicKeySize), 1); err == nil {
		t.Error("accepted a public key with numbers beyond ML-KEM's modulus")
	}
}

func TestSuitesAreThoseOfThisVersion(t *testing.T) {
	for s, want := range map[Suite]string{AES256GCM: "aes-256-gcm", ChaCha20: "chacha20-poly1305", 2: "suite 2"} {
		if s.String() != want || s.Valid() != (s < 2) {
			t.Errorf("suite %d is %q, valid %v", uint8(s), s, s.Valid())
		}
	}
}

func TestParsePublicKeyAcceptsWhatHPKEAccepts(t *testing.T) {
	good := newRelays(t, 1)[0].key.Public().Bytes()
	refused := 0
	compare := func(b []byte) {
		t.Helper()
		_, want := kem().NewPublicKey(b)
		_, got := ParsePublicKey(b, 1)
		if (got == nil) != (want == nil) {
			t.Fatalf("ParsePublicKey: %v; crypto/hpke: %v of the key\n%x", got, want, b)
		}
		if got != nil {
			refused++
		}
	}
	compare(good)
	compare(good[1:])
	compare(append(good, 0))
	for at := range good { // every byte at its greatest: half of a number that is then too great
		b := bytes.Clone(good)
		b[at] = 0xff
		compare(b)
	}
	for at := 0; at < coefficients*12/8; at += 3 { // each number around the modulus
		for _, n := range []uint32{modulus - 1, modulus, 0xfff} {
			b := bytes.Clone(good)
			b[at], b[at+1] = byte(n), b[at+1]&0xf0|byte(n>>8)
			compare(b)
			b = bytes.Clone(good)
			b[at+1], b[at+2] = b[at+1]&0x0f|byte(n<<4), byte(n>>4)
			compare(b)
		}
	}
	if refused < 2*coefficients {
		t.Errorf("refused %d keys, want every number at the modulus and above among them", refused)
	}
}

func BenchmarkParsePublicKey(b *testing.B) {
	raw := newRelays(b, 1)[0].key.Public().Bytes()
	for b.Loop() {
		if _, err := ParsePublicKey(raw, 1); err != nil {
			b.Fatal(err)
		}
	}
}
