package setup

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/shoal-p2p/shoal/proxy/setup/deluge"
)

// delugeAPI reads and writes settings through Deluge's daemon.
type delugeAPI struct{ daemon deluge.Daemon }

func (d *delugeAPI) read(ctx context.Context) (settings, error) {
	config, err := d.config(ctx)
	if err != nil {
		return nil, err
	}
	b, err := json.Marshal(config)
	if err != nil { // a number that is none
		return nil, fmt.Errorf("setup: Deluge's settings: %w", err)
	}
	s := make(settings)
	return s, s.add("", b)
}

func (d *delugeAPI) config(ctx context.Context) (map[string]any, error) {
	answer, err := d.daemon.Call(ctx, "core.get_config")
	if err != nil {
		return nil, err
	}
	config, ok := answer.(map[string]any)
	if !ok {
		return nil, fmt.Errorf("setup: Deluge's settings are %T", answer)
	}
	return config, nil
}

// write sends whole objects, since the daemon takes them so.
func (d *delugeAPI) write(ctx context.Context, all []Change) error {
	config, err := d.config(ctx)
	if err != nil {
		return err
	}
	set := make(map[string]any)
	for _, c := range all {
		v, err := fromJSON(c.New)
		if err != nil {
			return err
		}
		outer, inner, nested := strings.Cut(c.Name, ".")
		if !nested {
			set[outer] = v
			continue
		}
		in, ok := config[outer].(map[string]any)
		if !ok {
			return fmt.Errorf("setup: Deluge has no object %s in its settings", outer)
		}
		in[inner] = v
		set[outer] = in
	}
	_, err = d.daemon.Call(ctx, "core.set_config", set)
	return err
}

// fromJSON returns a value as package rencode has it.
func fromJSON(raw json.RawMessage) (any, error) {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, fmt.Errorf("setup: %w", err)
	}
	switch n := v.(type) {
	case json.Number:
		if i, err := n.Int64(); err == nil {
			return i, nil
		}
		return n.Float64()
	case nil, bool, string:
		return v, nil
	}
	return nil, fmt.Errorf("setup: a setting of type %T", v)
}
