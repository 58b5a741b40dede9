package netns

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
)

// notAllowed makes the error for a user who may not make namespaces: which
// setting forbids it, and how to change that. read returns a file of /proc/sys
// or "" where there is none.
func notAllowed(cause error, exe string, read func(string) string) error {
	var fix string
	switch {
	case read("user/max_user_namespaces") == "0":
		fix = "user namespaces are switched off; to allow them: sudo sysctl user.max_user_namespaces=15000"
	case read("user/max_net_namespaces") == "0" || read("user/max_mnt_namespaces") == "0":
		fix = "network or mount namespaces are switched off; to allow them: sudo sysctl user.max_net_namespaces=15000 user.max_mnt_namespaces=15000"
	case read("kernel/unprivileged_userns_clone") == "0":
		fix = "only root may make user namespaces; to allow them: sudo sysctl kernel.unprivileged_userns_clone=1"
	case read("kernel/apparmor_restrict_unprivileged_userns") == "1":
		fix = fmt.Sprintf("AppArmor keeps user namespaces from programs it doesn't know; to allow them: "+
			"sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0, "+
			"or for this program alone a file in /etc/apparmor.d with: profile shoal %s flags=(unconfined) { userns, }", exe)
	default:
		fix = "inside a container, start that with user namespaces allowed (Docker: --security-opt seccomp=unconfined --security-opt apparmor=unconfined); in a systemd unit, leave out RestrictNamespaces="
	}
	return fmt.Errorf("netns: %w: %s (%v)", ErrNotAllowed, fix, cause)
}

func readSysctl(name string) string {
	b, err := os.ReadFile("/proc/sys/" + name)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// refusal reports whether err is how a kernel says no to namespaces.
func refusal(err error) bool {
	return errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.EACCES) ||
		errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EUSERS) ||
		errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.ENOSYS)
}
