package config

import (
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// decodeOnly decodes without judging, and returns the keys whose value is not
// the default.
func decodeOnly(t *testing.T, text string) (Config, *decoder, []string) {
	t.Helper()
	doc, p := readDocument("example.toml", []byte(text))
	if p != nil {
		t.Fatal(p)
	}
	c := Default()
	d := &decoder{findings: newFindings(doc), env: testEnv()}
	d.group("", doc.root, c.fields(), "")
	var changed []string
	for path := range doc.lines {
		// Without this one key, is the rest another configuration?
		f, ok := schema()[display(path)]
		if _, isGroup := f.to.(group); !ok || isGroup || strings.HasSuffix(path, "]") {
			continue
		}
		if _, isList := f.to.(list); isList {
			continue
		}
		if differs(t, doc, path) {
			changed = append(changed, path)
		}
	}
	slices.Sort(changed)
	return c, d, changed
}

// differs decodes one key by itself and says whether it changes a default.
func differs(t *testing.T, doc *document, path string) bool {
	t.Helper()
	var raw any = doc.root
	var at group
	c := new(Config)
	*c = Default()
	at = c.fields()
	outputType := ""
	var with, without any
	for part := range strings.SplitSeq(path, ".") {
		name, _, indexed := strings.Cut(part, "[")
		i := slices.IndexFunc(at, func(f field) bool { return f.key == name })
		raw = raw.(map[string]any)[name]
		switch to := at[i].to.(type) {
		case group:
			at = to
		case list:
			if !indexed {
				t.Fatalf("%s: no number", path)
			}
			n := int(part[len(name)+1] - '0')
			tables := raw.([]map[string]any)
			if name == "output" {
				outputType = typeOf(tables[n])
			}
			at, raw = to(tables)[n], tables[n]
		case reference:
			without = *to.text
			with = raw
		default:
			without = reflect.ValueOf(to).Elem().Interface()
			d := &decoder{findings: newFindings(nil), env: testEnv()}
			d.value("x", raw, to)
			if len(d.problems) > 0 && outputType != "" && name != "token" && name != "password" {
				t.Fatalf("%s: %v", path, d.problems)
			}
			with = reflect.ValueOf(to).Elem().Interface()
			if len(d.problems) > 0 {
				with = raw
			}
		}
	}
	return !sameValue(with, without)
}

// The file as it ships: what stands in it are the defaults, and all that is
// said of it is what an operator has to fill in.
func TestExampleIsTheDefault(t *testing.T) {
	c, d, changed := decodeOnly(t, Example())
	if len(d.problems)+len(d.warnings) > 0 {
		t.Fatal(d.problems, d.warnings)
	}
	want := Default()
	want.Sources = []Source{DefaultSource()}
	want.Outputs = []Output{DefaultOutput(TypeHTTPS)}
	if !reflect.DeepEqual(c, want) {
		t.Errorf("got  %+v\nwant %+v", c, want)
	}
	if len(changed) > 0 {
		t.Errorf("not the default: %v", changed)
	}
	_, _, err := Parse("example.toml", []byte(Example()), Env{})
	var keys []string
	for _, p := range err.(Errors) {
		keys = append(keys, p.Key)
	}
	slices.Sort(keys)
	if !slices.Equal(keys, []string{"output.name", "output.url", "source.bucket", "source.name"}) {
		t.Errorf("%v", err)
	}
}

var commentedKey = regexp.MustCompile(`(?m)^#([a-z_]+ *=|\[)`)

// uncommented is the example with its samples taken in.
func uncommented() string { return commentedKey.ReplaceAllString(Example(), "$1") }

// With the samples taken in, only those differ from the defaults that say so.
func TestExampleSamples(t *testing.T) {
	text := uncommented()
	_, _, changed := decodeOnly(t, text)
	lines := strings.Split(text, "\n")
	index := lineIndex([]byte(text))
	marked := regexp.MustCompile(`# (required|sample)`)
	for i, line := range lines {
		isKey := regexp.MustCompile(`^[a-z_]+ *=`).MatchString(line)
		differs := slices.ContainsFunc(changed, func(p string) bool { return index[p] == i+1 })
		isType := strings.HasPrefix(line, "type ")
		if isKey && !isType && differs != marked.MatchString(line) {
			t.Errorf("line %d: differs from the default: %v, and says: %s", i+1, differs, line)
		}
	}
	// All that is left to say of it is what comes later, and that token and
	// password exclude each other.
	_, _, err := Parse("example.toml", []byte(text), testEnv())
	for _, p := range err.(Errors) {
		later := strings.HasPrefix(p.Message, "not available in this version")
		reference := strings.HasPrefix(p.Message, "the environment variable")
		otherType := strings.HasPrefix(p.Message, "means nothing with credentials")
		if !later && !reference && !otherType {
			t.Errorf("%v", p)
		}
	}
}

// Every key of the schema is shown, and nothing else.
func TestExampleShowsEveryKey(t *testing.T) {
	doc, p := readDocument("example.toml", []byte(uncommented()))
	if p != nil {
		t.Fatal(p)
	}
	shown := map[string]bool{}
	for path := range doc.lines {
		shown[display(path)] = true
	}
	for key := range schema() {
		if !shown[key] {
			t.Errorf("%s is not shown", key)
		}
	}
	for path := range doc.lines {
		key := display(path)
		if _, ok := schema()[key]; !ok && !strings.HasPrefix(key, "source.account.labels.") {
			t.Errorf("%s is shown, and is no key", key)
		}
	}
}

func TestDocumentationHasEveryKey(t *testing.T) {
	const file = "../../docs/configuration.md"
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	text := string(data)
	for key, f := range schema() {
		name := key[strings.LastIndexByte(key, '.')+1:]
		entry := "| `" + name + "` |"
		switch f.to.(type) {
		case list:
			entry = "`[[" + key + "]]`"
		case group:
			entry = "`[" + key + "]`"
		default:
			table := key[:strings.LastIndexByte(key, '.')]
			if strings.Count(table, ".") == 0 {
				break
			}
			// A key of a small table stands in that table's section.
			_, section, ok := strings.Cut(text, table+"]")
			if !ok || !strings.Contains(section, entry) {
				t.Errorf("%s does not have %s", file, key)
			}
			continue
		}
		if !strings.Contains(text, entry) {
			t.Errorf("%s does not have %s", file, key)
		}
	}
}

// sameValue takes an empty map or slice for none.
func sameValue(a, b any) bool {
	if reflect.DeepEqual(a, b) {
		return true
	}
	x, y := reflect.ValueOf(a), reflect.ValueOf(b)
	return (x.Kind() == reflect.Map || x.Kind() == reflect.Slice) && x.Len() == 0 && y.Len() == 0
}
