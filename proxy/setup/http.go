package setup

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"time"
)

const (
	apiTimeout = 10 * time.Second
	maxAnswer  = 4 << 20 // bytes
)

// ErrLogin is inside the error of a client that wants another user name or
// password, or any.
var ErrLogin = errors.New("setup: the client asks for its user name and password")

// newHTTP returns an HTTP client that uses no proxy. On this computer it accepts
// the certificates that programs make for themselves.
func newHTTP(base string) *http.Client {
	t := &http.Transport{DisableKeepAlives: true}
	if u, err := url.Parse(base); err == nil {
		if a, err := netip.ParseAddr(u.Hostname()); err == nil && a.IsLoopback() || u.Hostname() == "localhost" {
			t.TLSClientConfig = &tls.Config{InsecureSkipVerify: true}
		}
	}
	return &http.Client{Transport: t, Timeout: apiTimeout, CheckRedirect: func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse
	}}
}

// send returns an answer and its body.
func send(c *http.Client, r *http.Request) (*http.Response, []byte, error) {
	resp, err := c.Do(r)
	if err != nil {
		return nil, nil, fmt.Errorf("setup: %w", err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return nil, nil, fmt.Errorf("setup: %w", err)
	}
	return resp, b, nil
}
