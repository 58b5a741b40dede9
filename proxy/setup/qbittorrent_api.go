package setup

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
)

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
	return parseQBPreferences(b)
}

// parseQBPreferences reads the answer to app/preferences: an object.
func parseQBPreferences(b []byte) (s settings, err error) {
	if err := json.Unmarshal(b, &s); err != nil || s == nil {
		return nil, fmt.Errorf("setup: qBittorrent's preferences are no JSON object: %w", err)
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

// ask sends a request, with a form if there is one, and logs in if it has to.
func (q *qbAPI) ask(ctx context.Context, what string, form url.Values) ([]byte, error) {
	status, b, err := q.do(ctx, what, form)
	if err == nil && (status == http.StatusForbidden || status == http.StatusUnauthorized) {
		if q.user == "" && q.password == "" {
			return nil, ErrLogin
		}
		var answer []byte
		status, answer, err = q.do(ctx, "auth/login", url.Values{"username": {q.user}, "password": {q.password}})
		if err == nil && (status/100 != 2 || strings.HasPrefix(string(answer), "Fail")) {
			return nil, ErrLogin
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
	r.Header.Set("Referer", q.base) // without it the request counts as another site's
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
