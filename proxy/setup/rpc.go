package setup

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
)

// transmissionAPI is Transmission's RPC.
type transmissionAPI struct {
	url            string
	user, password string
	http           *http.Client
	session        string // against other sites: Transmission says which it is
}

func (t *transmissionAPI) read(ctx context.Context) (settings, error) {
	b, err := t.call(ctx, "session-get", nil)
	if err != nil {
		return nil, err
	}
	s := make(settings)
	return s, s.add("", b)
}

func (t *transmissionAPI) write(ctx context.Context, all []Change) error {
	s := make(settings)
	for _, c := range all {
		s[c.Name] = c.New
	}
	_, err := t.call(ctx, "session-set", s)
	return err
}

func (t *transmissionAPI) call(ctx context.Context, method string, arguments settings) (json.RawMessage, error) {
	body := value(map[string]any{"method": method, "arguments": arguments})
	for range 2 {
		r, err := http.NewRequestWithContext(ctx, http.MethodPost, t.url, bytes.NewReader(body))
		if err != nil {
			return nil, fmt.Errorf("setup: %w", err)
		}
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("X-Transmission-Session-Id", t.session)
		if t.user != "" || t.password != "" {
			r.SetBasicAuth(t.user, t.password)
		}
		resp, b, err := send(t.http, r)
		if err != nil {
			return nil, err
		}
		switch resp.StatusCode {
		case http.StatusConflict:
			t.session = resp.Header.Get("X-Transmission-Session-Id")
			continue
		case http.StatusUnauthorized:
			return nil, errLogin
		case http.StatusOK:
		default:
			return nil, fmt.Errorf("setup: Transmission answers with %d", resp.StatusCode)
		}
		var answer struct {
			Result    string          `json:"result"`
			Arguments json.RawMessage `json:"arguments"`
		}
		if err := json.Unmarshal(b, &answer); err != nil {
			return nil, fmt.Errorf("setup: Transmission: %w", err)
		}
		if answer.Result != "success" {
			return nil, fmt.Errorf("setup: Transmission: %s: %.200q", method, answer.Result)
		}
		return answer.Arguments, nil
	}
	return nil, errors.New("setup: Transmission gives no session")
}
