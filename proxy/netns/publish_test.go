package netns

import "testing"

func TestParsePublish(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"8080", "127.0.0.1:8080:8080"},
		{"8080:9091", "127.0.0.1:8080:9091"},
		{"0:9091", "127.0.0.1:0:9091"},
		{"localhost:8080", "127.0.0.1:8080:8080"},
		{"0.0.0.0:8080", "0.0.0.0:8080:8080"},
		{"192.0.2.1:8080:9091", "192.0.2.1:8080:9091"},
		{"[::1]:8080:9091", "[::1]:8080:9091"},
		{"[::]:8080", "[::]:8080:8080"},
		{"", ""}, {":", ""}, {"0", ""}, {"8080:0", ""}, {"8080:", ""}, {":8080", ""}, {"65536", ""}, {"8080:65536", ""},
		{"host:8080", ""}, {"::1:8080", ""}, {"[127.0.0.1]:8080", ""}, {"[::1]", ""}, {"[::1", ""}, {"[fe80::1%lo]:80", ""},
		{"1:2:3", ""}, {"127.0.0.1:1:2:3", ""}, {"-1", ""}, {"+1", ""}, {"127.0.0.1", ""}, {"80 ", ""},
	} {
		p, err := ParsePublish(c.in)
		switch {
		case c.want == "" && err == nil:
			t.Errorf("ParsePublish(%q) = %v, want an error", c.in, p)
		case c.want != "" && (err != nil || p.String() != c.want):
			t.Errorf("ParsePublish(%q) = %v, %v; want %s", c.in, p, err, c.want)
		}
	}
}

func FuzzParsePublish(f *testing.F) {
	for _, s := range []string{"8080", "8080:9091", "127.0.0.1:8080", "[::1]:8080:9091", "[", ":::"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := ParsePublish(s)
		if err != nil {
			return
		}
		if again, err := ParsePublish(p.String()); err != nil || again != p {
			t.Errorf("ParsePublish(%q) = %v, which reads back as %v, %v", s, p, again, err)
		}
	})
}
