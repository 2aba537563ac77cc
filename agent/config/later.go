package config

import "strings"

// laterFeature is a setting that is understood, but does nothing yet. To
// switch a feature on, remove its row.
type laterFeature struct {
	key   string // the key, or with table the table above it
	value string // the value meant; "" = any but the default
	what  string // the feature
	use   string // what to do meanwhile
	table bool
	// mild: the rest works without it, so that it is a warning; and it is said
	// even of the default, if that stands in the file.
	mild bool
}

var laterFeatures = [...]laterFeature{
	{key: "agent.listen", what: "the status page, metrics and health", use: "remove it; the log has a summary every minute", mild: true},
	{key: "agent.listen_token", what: "the status page", use: "remove it", mild: true},
}

// later reports a key that asks for what is not there yet. changed says that
// its value is not the default.
func (d *decoder) later(path string, raw any, changed bool) {
	if d.failed[path] {
		return
	}
	key := display(path)
	for _, f := range laterFeatures {
		if f.table {
			table := path[:max(strings.LastIndexByte(path, '.'), 0)]
			if display(table) != f.key || !changed || d.named[table] {
				continue
			}
			d.named[table] = true
		} else if key != f.key || !f.meant(raw, changed) {
			continue
		}
		if f.mild {
			d.warn(path, "not available in this version: "+f.what, f.use)
		} else {
			d.bad(path, "not available in this version: "+f.what, f.use)
		}
	}
}

func (f *laterFeature) meant(raw any, changed bool) bool {
	switch v := raw.(type) {
	case string:
		if f.value != "" {
			return v == f.value
		}
		return v != "" && (changed || f.mild)
	case []any:
		return len(v) > 0 && changed
	case []map[string]any:
		return len(v) > 0
	}
	return changed && f.value == ""
}
