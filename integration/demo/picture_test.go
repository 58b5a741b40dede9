package demo

import (
	"bytes"
	"image/png"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestThePictureIsOneAndAlwaysTheSame(t *testing.T) {
	a, err := Picture()
	if err != nil {
		t.Fatal(err)
	}
	b, _ := Picture()
	if !bytes.Equal(a, b) {
		t.Error("two pictures differ")
	}
	img, err := png.Decode(bytes.NewReader(a))
	if err != nil || img.Bounds().Dx() != width || len(a) < 1<<20 || len(a) > 4<<20 {
		t.Errorf("a picture of %d bytes, %v", len(a), err)
	}
}

func TestWhatIsNoFileOrTooLargeIsRefused(t *testing.T) {
	dir := t.TempDir()
	large := filepath.Join(dir, "large")
	if err := os.WriteFile(large, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(large, maxPicture+1); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		dir:                           "not a file",
		large:                         "want 1 to",
		filepath.Join(dir, "missing"): "no such file",
	} {
		if _, _, err := (Config{Picture: path}).load(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("load(%s) = %v, want %q", path, err, want)
		}
	}
}
