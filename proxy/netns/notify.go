package netns

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// notifyVariable names the service manager's socket (sd_notify(3)).
const notifyVariable = "NOTIFY_SOCKET"

const (
	maxNotification = 4096 // bytes of a datagram from the command
	maxStatus       = 256  // of a line of status
)

// passOn returns what of a command's notification goes on to the service
// manager: that it is ready, that it ends, and a line about how it is. Other
// assignments could name processes, pass descriptors or keep a watchdog quiet.
func passOn(notification string) string {
	var out []string
	for line := range strings.Lines(notification) {
		line = strings.TrimSuffix(line, "\n")
		status, found := strings.CutPrefix(line, "STATUS=")
		switch {
		case line == "READY=1" || line == "STOPPING=1":
			out = append(out, line)
		case found && len(status) <= maxStatus && isText(status):
			out = append(out, line)
		}
	}
	return strings.Join(out, "\n")
}

func isText(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) })
}
