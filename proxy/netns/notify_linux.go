package netns

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// managerPatience is how long a manager may take to read what it was told before.
const managerPatience = time.Second

// notifySocket returns a socket at which the command finds its service manager:
// at the same path, or under the same abstract name, as outside. It returns nil
// when there is no manager.
func (o *overlay) notifySocket() (*net.UnixConn, error) {
	name := os.Getenv(notifyVariable)
	switch {
	case name == "":
		return nil, nil
	case strings.HasPrefix(name, "@"): // abstract names belong to the network namespace
		return net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	case !filepath.IsAbs(name):
		return nil, fmt.Errorf("%s is neither a path nor an abstract name", name)
	}
	own := filepath.Join(fdPath(o.dir), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: own, Net: "unixgram"})
	if err != nil {
		return nil, err
	}
	err = os.Chmod(own, 0o666) // the command may have become another user
	if err == nil {
		err = unix.Mount(own, name, "", unix.MS_BIND, "")
	}
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return conn, nil
}

// hearNotify passes what the command tells the service manager on to Run until
// the socket's deadline. Descriptors that come with it are not received.
func (s *supervisor) hearNotify() {
	b := make([]byte, maxNotification)
	for {
		n, err := s.notify.Read(b)
		if err != nil {
			return
		}
		_ = s.ctl.send(message{Kind: kindNotify, Text: string(b[:n])})
	}
}

// drainNotify passes on what the command has said and hearNotify has not read:
// the last word of a command that is over.
func (s *supervisor) drainNotify() {
	if s.notify == nil {
		return
	}
	_ = s.notify.SetReadDeadline(time.Now())
	s.hearing.Wait()
	_ = s.notify.SetReadDeadline(time.Time{})
	raw, err := s.notify.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Read(func(fd uintptr) bool {
		for b := make([]byte, maxNotification); ; {
			n, err := unix.Read(int(fd), b)
			if err != nil {
				return true // nothing is left
			}
			_ = s.ctl.send(message{Kind: kindNotify, Text: string(b[:n])})
		}
	})
}

// notifyManager tells the service manager, as this process, what the command
// did; nothing if that is not for a manager, or there is none.
func notifyManager(env []string, notification string) {
	text := passOn(notification)
	for _, v := range env {
		name, found := strings.CutPrefix(v, notifyVariable+"=")
		if !found || text == "" {
			continue
		}
		conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: name, Net: "unixgram"})
		if err != nil {
			return
		}
		_ = conn.SetWriteDeadline(time.Now().Add(managerPatience))
		_, _ = conn.Write([]byte(text))
		conn.Close()
		return
	}
}
