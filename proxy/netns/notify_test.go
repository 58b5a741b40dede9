package netns

import (
	"strings"
	"testing"
)

func TestOnlyThreeNotificationsGoOn(t *testing.T) {
	for in, want := range map[string]string{
		"READY=1":                              "READY=1",
		"READY=1\n":                            "READY=1",
		"STOPPING=1":                           "STOPPING=1",
		"STATUS=Seeding 3 torrents":            "STATUS=Seeding 3 torrents",
		"STATUS=":                              "STATUS=",
		"STATUS=Größe":                         "STATUS=Größe",
		"READY=1\nSTATUS=up\nMAINPID=17":       "READY=1\nSTATUS=up",
		"MAINPID=17\nREADY=1\nERRNO=2":         "READY=1",
		"":                                     "",
		"READY=0":                              "",
		"READY=1 ":                             "",
		"ready=1":                              "",
		"RELOADING=1\nMONOTONIC_USEC=1":        "",
		"WATCHDOG=1":                           "",
		"FDSTORE=1\nFDNAME=x":                  "",
		"BARRIER=1":                            "",
		"STATUS=a\x00b":                        "",
		"STATUS=\x1b[2J":                       "",
		"STATUS=\xff":                          "",
		"STATUS=" + strings.Repeat("x", 257):   "",
		"X_STATUS=a\nSTATUS=b\rREADY=1":        "",
		"STATUS=a\nSTATUS=b\nREADY=1\nREADY=1": "STATUS=a\nSTATUS=b\nREADY=1\nREADY=1",
	} {
		if got := passOn(in); got != want {
			t.Errorf("passOn(%q) = %q, want %q", in, got, want)
		}
	}
}

func FuzzPassOn(f *testing.F) {
	f.Add("READY=1\nSTATUS=up\nMAINPID=17")
	f.Add("STATUS=\xff\nSTOPPING=1")
	f.Fuzz(func(t *testing.T, in string) {
		out := passOn(in)
		if out == "" {
			return
		}
		if again := passOn(out); again != out {
			t.Errorf("passOn(%q) = %q, and of that %q", in, out, again)
		}
		for line := range strings.SplitSeq(out, "\n") {
			if line != "READY=1" && line != "STOPPING=1" && !strings.HasPrefix(line, "STATUS=") || len(line) > len("STATUS=")+maxStatus {
				t.Errorf("%q goes on", line)
			}
		}
	})
}

func TestInterfacesThatACommandCanHave(t *testing.T) {
	for _, s := range []string{"wg0", "tun0=10.8.0.6", "enp0s31f6=192.168.1.5", "br-lan.5", "eth0=100.64.1.2"} {
		if _, _, err := ParseInterface(s); err != nil {
			t.Errorf("ParseInterface(%q): %v", s, err)
		}
	}
	for _, s := range []string{
		"", "=10.2.0.2", "lo", "shoal1", "..", "a/b", "sixteen-letters-", "wg 0", "wg%d", "wg0:1", "wg0=", "wg0=host", "wg0=::1", "wg0=fd00::2",
		"wg0=127.0.0.1", "wg0=0.0.0.0", "wg0=224.0.0.1", "wg0=255.255.255.255", "wg0=10.64.0.1", "wg0=10.2.0.2/24", "wg0=10.2.0.2=1",
	} {
		if name, addr, err := ParseInterface(s); err == nil {
			t.Errorf("ParseInterface(%q) = %q, %v", s, name, addr)
		}
	}
}
