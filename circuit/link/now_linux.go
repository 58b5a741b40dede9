package link

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// Reads and writes that never wait, made without telling Go's scheduler: it would
// give the processor of a call that takes longer than some 20 µs, which copying a
// batch does, to another thread, and have this one look for another afterwards, on
// whatever core that is. BenchmarkRelayCores has what it is worth.

// readNow reads what is there; the error is EAGAIN when nothing is.
func readNow(fd uintptr, b []byte) (int, error) {
	n, err := call(unix.SYS_RECVFROM, fd, b, unix.MSG_DONTWAIT)
	hasRead(fd)
	return n, err
}

// writeNow writes as much as fits; the error is EAGAIN when nothing does.
func writeNow(fd uintptr, b []byte) (int, error) {
	willWrite()
	return call(unix.SYS_SENDTO, fd, b, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
}

func call(number, fd uintptr, b []byte, flags uintptr) (int, error) {
	n, _, err := unix.RawSyscall6(number, fd, uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), flags, 0, 0)
	if err != 0 {
		return 0, err
	}
	return int(n), nil
}
