package config

import (
	"maps"
	"slices"
	"strconv"
	"strings"
)

// decoder moves the values of a document into the fields of a Config. A value
// that can't be taken is a problem, and the field keeps its default.
type decoder struct {
	*findings
	env Env
	// literals are the keys whose secret stands in the file itself.
	literals []string
}

func (d *decoder) group(at string, raw map[string]any, g group, outputType string) {
	for _, key := range slices.Sorted(maps.Keys(raw)) {
		if !slices.ContainsFunc(g, func(f field) bool { return f.key == key }) {
			d.unknown(at, key, g)
		}
	}
	for _, f := range g {
		v, ok := raw[f.key]
		if !ok {
			continue
		}
		path := child(at, f.key)
		if f.types != nil && isType(outputType) && !slices.Contains(f.types, outputType) {
			d.undecodable(path,
				"a key of "+either(f.types)+" outputs, in one of type "+outputType,
				"remove it, or write type = "+quoted(f.types[0]))
			continue
		}
		d.field(path, v, f)
	}
}

func isType(s string) bool { return slices.Contains(outputTypes, s) }

// field decodes one key.
func (d *decoder) field(path string, v any, f field) {
	switch to := f.to.(type) {
	case group:
		t, ok := v.(map[string]any)
		if !ok {
			d.wrongShape(path, v, "["+display(path)+"]")
			return
		}
		d.group(path, t, to, "")
	case list:
		d.list(path, v, to)
	case reference:
		d.text(path, v, to.text, true)
	default:
		d.value(path, v, f.to)
	}
}

func (d *decoder) wrongShape(path string, v any, header string) {
	d.undecodable(path, "this is "+kind(v)+", not a table", "write "+header+" on a line of its own, and its keys below")
}

func (d *decoder) list(path string, v any, to list) {
	var raw []map[string]any
	switch v := v.(type) {
	case []map[string]any:
		raw = v
	case []any:
		for i, e := range v {
			t, ok := e.(map[string]any)
			if !ok {
				d.wrongShape(item(path, i), e, "[["+display(path)+"]]")
				d.failed[path] = true
				return
			}
			raw = append(raw, t)
		}
	default:
		d.undecodable(path, "this is "+kind(v)+", but there may be several of it",
			"write [["+display(path)+"]], with two brackets")
		return
	}
	for i, g := range to(raw) {
		outputType := ""
		if path == "output" {
			outputType = typeOf(raw[i])
		}
		d.group(item(path, i), raw[i], g, outputType)
	}
}

func (d *decoder) value(path string, v any, to any) {
	switch to := to.(type) {
	case *string:
		d.text(path, v, to, false)
	case *bool:
		if b, ok := v.(bool); ok {
			*to = b
			return
		}
		d.wrongType(path, v, "true or false", "write true or false, without quotes")
	case *int:
		if n, ok := v.(int64); ok && int64(int(n)) == n {
			*to = int(n)
			return
		}
		d.wrongType(path, v, "a whole number", "write a number, without quotes")
	case *[]string:
		d.texts(path, v, to)
	case *map[string]string:
		d.textMap(path, v, to)
	case *map[string]Secret:
		d.secretMap(path, v, to)
	case *Secret:
		var s string
		if d.secret(path, v, &s) {
			*to = NewSecret(s)
		}
	case *URL:
		d.url(path, v, to)
	case *Duration:
		parsed(d, path, v, to, ParseDuration, "a duration", `write one like "30s", "1h30m" or "30d"`)
	case *Size:
		parsed(d, path, v, to, ParseSize, "a size", `write a whole number and its unit, like "64MiB" or "1MB"`)
	case *Start:
		parsed(d, path, v, to, ParseStart, "a start", `write "now", "-7d", "-24h", "2026-11-01" or "2026-11-01T06:00:00Z"`)
	}
}

// parsed decodes a text that has a form of its own. The text is quoted in the
// problem: none of these types holds a secret.
func parsed[T any](d *decoder, path string, v any, to *T, parse func(string) (T, error), what, remedy string) {
	s, ok := v.(string)
	if !ok {
		d.wrongType(path, v, what+" in quotes", remedy)
		return
	}
	value, err := parse(s)
	if err != nil {
		d.undecodable(path, quoted(s)+" is not "+what, remedy)
		return
	}
	*to = value
}

func (d *decoder) wrongType(path string, v any, want, remedy string) {
	d.undecodable(path, "this is "+kind(v)+", not "+want, remedy)
}

// text decodes a text, following env: and file: if it may be a reference.
func (d *decoder) text(path string, v any, to *string, mayRefer bool) bool {
	s, ok := v.(string)
	if !ok {
		d.wrongType(path, v, "text", `put it in "…"`)
		return false
	}
	if mayRefer {
		value, _, f := d.env.resolve(s)
		if f != nil {
			d.undecodable(path, f.message, f.remedy)
			return false
		}
		s = value
	}
	*to = s
	return true
}

// secret decodes a text that must not be seen, and remembers it if it stands
// in the file itself.
func (d *decoder) secret(path string, v any, to *string) bool {
	var s string
	if !d.text(path, v, &s, false) {
		return false
	}
	value, literal, f := d.env.resolve(s)
	if f != nil {
		d.undecodable(path, f.message, f.remedy)
		return false
	}
	if hasControl(value) {
		d.undecodable(path, "there is a line break or another control character in it", "write it on one line")
		return false
	}
	if literal && value != "" {
		d.literals = append(d.literals, path)
	}
	*to = value
	return true
}

func (d *decoder) url(path string, v any, to *URL) {
	var s string
	if !d.text(path, v, &s, false) {
		return
	}
	value, literal, f := d.env.resolve(s)
	if f != nil {
		d.undecodable(path, f.message, f.remedy)
		return
	}
	if u, flaw := parseURL(value); literal && flaw == nil && u.User != nil {
		d.literals = append(d.literals, path)
	}
	*to = NewURL(value)
}

func (d *decoder) texts(path string, v any, to *[]string) {
	if s, ok := v.(string); ok {
		d.wrongType(path, s, "a list", `write ["…"], with brackets, even for one`)
		return
	}
	items, ok := v.([]any)
	if !ok {
		// A list of tables arrives as a type of its own.
		d.wrongType(path, v, "a list of texts", `write ["…", "…"]`)
		return
	}
	var all []string
	for i, e := range items {
		var s string
		if !d.text(item(path, i), e, &s, false) {
			d.failed[path] = true
			return
		}
		all = append(all, s)
	}
	*to = all
}

func (d *decoder) textMap(path string, v any, to *map[string]string) {
	t, ok := d.mapOf(path, v)
	if !ok {
		return
	}
	all := make(map[string]string, len(t))
	for _, k := range slices.Sorted(maps.Keys(t)) {
		var s string
		if d.text(child(path, k), t[k], &s, false) {
			all[k] = s
		}
	}
	if len(all) > 0 {
		*to = all
	}
}

func (d *decoder) secretMap(path string, v any, to *map[string]Secret) {
	t, ok := d.mapOf(path, v)
	if !ok {
		return
	}
	all := make(map[string]Secret, len(t))
	for _, k := range slices.Sorted(maps.Keys(t)) {
		var s string
		if d.secret(child(path, k), t[k], &s) {
			all[k] = NewSecret(s)
		}
	}
	if len(all) > 0 {
		*to = all
	}
}

func (d *decoder) mapOf(path string, v any) (map[string]any, bool) {
	t, ok := v.(map[string]any)
	if !ok {
		d.wrongType(path, v, "a table", `write { name = "value" }`)
	}
	return t, ok
}

// unknown says that a key is none, and where it may have been meant to stand:
// under a header, TOML takes every key for one of that table.
func (d *decoder) unknown(at, key string, g group) {
	path := child(at, key)
	const message = "there is no such key"
	table := display(at)
	for _, other := range []string{"source", "output", "agent"} {
		name := child(other, key)
		if _, ok := schema()[name]; ok && other != table {
			remedy := "it is a key of " + header(other) + ": move it there"
			if strings.HasPrefix(table, other+".") {
				remedy = "it is a key of " + header(other) + ": move it above [" + table + "]"
			}
			d.bad(path, message, remedy)
			return
		}
	}
	names := make([]string, len(g))
	for i, f := range g {
		names[i] = f.key
	}
	if s := nearest(key, names); s != "" {
		d.bad(path, message, "did you mean "+s+"?")
		return
	}
	d.bad(path, message, "remove it; the keys are "+strings.Join(names, ", "))
}

func header(table string) string {
	if table == "agent" {
		return "[agent]"
	}
	return "[[" + table + "]]"
}

// quoted returns s in quotes for a message, shortened if it is long.
func quoted(s string) string {
	const most = 80
	if len(s) > most {
		return strconv.Quote(strings.ToValidUTF8(s[:most], "")) + "…"
	}
	return strconv.Quote(s)
}

// either joins names as "a, b or c".
func either(names []string) string {
	n := len(names)
	if n < 2 {
		return strings.Join(names, "")
	}
	return strings.Join(names[:n-1], ", ") + " or " + names[n-1]
}
