package program

// outliveReader does nothing: Windows has no SIGPIPE.
func outliveReader() {}
