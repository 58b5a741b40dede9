package setup

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"
)

// api is the way to the settings of a client that runs.
type api interface {
	read(context.Context) (settings, error)
	write(context.Context, []Change) error
}

const (
	apiTimeout = 10 * time.Second
	maxAnswer  = 4 << 20 // bytes; Deluge's list of plugins is the longest
)

// errLogin is what an API says to those it doesn't know.
var errLogin = errors.New("setup: it asks for a user name and a password")

// newHTTP returns a client that goes past every proxy, and that takes the
// certificates which programs of this computer make for themselves.
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

// qbAPI is qBittorrent's web API.
type qbAPI struct {
	base           string // URL without a slash at its end
	user, password string
	http           *http.Client
	cookie         string
}

func (q *qbAPI) read(ctx context.Context) (settings, error) {
	b, err := q.ask(ctx, "app/preferences", nil)
	if err != nil {
		return nil, err
	}
	var s settings
	if err := json.Unmarshal(b, &s); err != nil {
		return nil, fmt.Errorf("setup: qBittorrent's preferences: %w", err)
	}
	return s, nil
}

func (q *qbAPI) write(ctx context.Context, all []Change) error {
	s := make(settings)
	for _, c := range all {
		s[c.Name] = c.New
	}
	_, err := q.ask(ctx, "app/setPreferences", url.Values{"json": {string(value(s))}})
	return err
}

// ask sends a form, or asks without one, after a login if need be.
func (q *qbAPI) ask(ctx context.Context, what string, form url.Values) ([]byte, error) {
	status, b, err := q.do(ctx, what, form)
	if err == nil && (status == http.StatusForbidden || status == http.StatusUnauthorized) {
		if q.user == "" && q.password == "" {
			return nil, errLogin
		}
		var answer []byte
		status, answer, err = q.do(ctx, "auth/login", url.Values{"username": {q.user}, "password": {q.password}})
		if err == nil && (status/100 != 2 || strings.HasPrefix(string(answer), "Fail")) {
			return nil, errLogin
		}
		if err == nil {
			status, b, err = q.do(ctx, what, form)
		}
	}
	if err != nil {
		return nil, err
	}
	if status/100 != 2 {
		return nil, fmt.Errorf("setup: qBittorrent answers %s with %d", what, status)
	}
	return b, nil
}

func (q *qbAPI) do(ctx context.Context, what string, form url.Values) (status int, body []byte, err error) {
	method := http.MethodGet
	if form != nil {
		method = http.MethodPost
	}
	r, err := http.NewRequestWithContext(ctx, method, q.base+"/api/v2/"+what, strings.NewReader(form.Encode()))
	if err != nil {
		return 0, nil, fmt.Errorf("setup: %w", err)
	}
	r.Header.Set("Referer", q.base) // or it takes us for another site
	if form != nil {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	if q.cookie != "" {
		r.Header.Set("Cookie", q.cookie)
	}
	resp, body, err := send(q.http, r)
	if err != nil {
		return 0, nil, err
	}
	for _, c := range resp.Cookies() {
		q.cookie = c.Name + "=" + c.Value
	}
	return resp.StatusCode, body, nil
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
