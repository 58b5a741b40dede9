package socks

// ResetUTP returns the packet that makes a client give up a µTP connection at
// once, if b opens one. Where TCP works as well, that is what a client is to
// turn to: it moves several times more.
func ResetUTP(b []byte) ([]byte, bool) {
	if !isUTP(b) || utpType(b) != utpSyn {
		return nil, false
	}
	return resetFor(b), true
}
