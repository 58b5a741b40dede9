package setup

import (
	"testing"
)

func TestCommandLinesAreRecognised(t *testing.T) {
	for _, c := range []struct {
		args    []string
		want    Client
		program string
	}{
		{[]string{"/usr/bin/qbittorrent"}, QBittorrent, "qbittorrent"},
		{[]string{"qbittorrent-nox", "--profile=/x"}, QBittorrent, "qbittorrent-nox"},
		{[]string{"/usr/bin/python3", "/usr/bin/deluged", "-d"}, Deluge, "deluged"},
		{[]string{"/usr/bin/python3.11", "/usr/bin/deluge-gtk"}, Deluge, "deluge-gtk"},
		{[]string{"deluged"}, Deluge, "deluged"},
		{[]string{"/usr/bin/transmission-daemon", "-f"}, Transmission, "transmission-daemon"},
		{[]string{`C:\Program Files\qBittorrent\qbittorrent`}, QBittorrent, "qbittorrent"},
		{[]string{"vi", "qbittorrent"}, nil, ""},
		{[]string{"/usr/bin/python3", "/usr/bin/deluge-web"}, nil, ""},
		{[]string{"/usr/bin/python3"}, nil, ""},
		{[]string{"shoal", "setup", "qbittorrent"}, nil, ""},
		{[]string{"aria2c", "--enable-rpc"}, Aria2, "aria2c"},
		{[]string{"rtorrent"}, RTorrent, "rtorrent"},
		{[]string{"/usr/bin/java", "-cp", "a.jar:b.jar", "-Xmx256m", "com.biglybt.ui.Main", "--ui=telnet"}, BiglyBT, "com.biglybt.ui.Main"},
		{[]string{"java", "-jar", "minecraft.jar"}, nil, ""},
		{[]string{"sh", "/usr/bin/biglybt"}, nil, ""}, // it starts java
		{nil, nil, ""},
	} {
		got, program, _, ok := classify(c.args)
		if got != c.want || program != c.program || ok != (c.want != nil) {
			t.Errorf("%q: got %v, %q, %v", c.args, got, program, ok)
		}
	}
}

func TestTheSettingsOfAProcessAreWhereItWasTold(t *testing.T) {
	linux := places{os: "linux", config: "/home/u/.config", home: "/home/u"}
	windows := places{os: "windows", config: "/roaming", local: "/local"}
	for _, c := range []struct {
		client  Client
		program string
		args    []string
		env     map[string]string
		in      places
		want    string
	}{
		{QBittorrent, "qbittorrent", nil, nil, linux, "/home/u/.config/qBittorrent/qBittorrent.conf"},
		{QBittorrent, "qbittorrent", []string{"--profile=/p"}, nil, linux, "/p/qBittorrent/config/qBittorrent.conf"},
		{QBittorrent, "qbittorrent", []string{"--profile", "p", "--configuration=c"}, nil, linux, "p/qBittorrent_c/config/qBittorrent.conf"},
		{QBittorrent, "qbittorrent", nil, map[string]string{"QBT_PROFILE": "/e"}, linux, "/e/qBittorrent/config/qBittorrent.conf"},
		{QBittorrent, "qbittorrent", nil, nil, windows, "/roaming/qBittorrent/qBittorrent.ini"},
		{Deluge, "deluged", nil, nil, linux, "/home/u/.config/deluge/core.conf"},
		{Deluge, "deluged", []string{"-d", "-c", "/d"}, nil, linux, "/d/core.conf"},
		{Deluge, "deluged", []string{"--config=/d"}, nil, linux, "/d/core.conf"},
		{Transmission, "transmission-daemon", nil, nil, linux, "/home/u/.config/transmission-daemon/settings.json"},
		{Transmission, "transmission-gtk", nil, nil, linux, "/home/u/.config/transmission/settings.json"},
		{Transmission, "transmission-daemon", []string{"-g", "/t"}, nil, linux, "/t/settings.json"},
		{Transmission, "transmission-daemon", []string{"-g/t"}, nil, linux, "/t/settings.json"},
		{Transmission, "transmission-daemon", nil, map[string]string{"TRANSMISSION_HOME": "/e"}, linux, "/e/settings.json"},
		{Transmission, "transmission-qt", nil, nil, windows, "/local/transmission/settings.json"},
		{BiglyBT, "com.biglybt.ui.Main", []string{"-Dazureus.config.path=/b", "--ui=telnet"}, nil, linux, "/b/biglybt.config"},
		{BiglyBT, "com.biglybt.ui.Main", nil, nil, linux, "/home/u/.biglybt/biglybt.config"},
		{BiglyBT, "BiglyBT", nil, nil, windows, "/roaming/BiglyBT/biglybt.config"},
	} {
		got := c.client.(configurable).file(c.program, c.args, func(name string) string { return c.env[name] }, c.in)
		if got != c.want {
			t.Errorf("%s %q: got %s, want %s", c.program, c.args, got, c.want)
		}
	}
}
