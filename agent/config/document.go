package config

import (
	"errors"
	"strconv"
	"strings"

	"github.com/BurntSushi/toml"
)

// document is a file that is TOML, and the line of each of its keys.
type document struct {
	name  string
	root  map[string]any
	lines map[string]int // by path
}

// Paths name keys: source[1].credentials.type. They are built by child and
// item only, so that two keys never have the same path.

func child(path, key string) string {
	if !bareKey(key) {
		key = strconv.Quote(key)
	}
	if path == "" {
		return key
	}
	return path + "." + key
}

func item(path string, i int) string { return path + "[" + strconv.Itoa(i) + "]" }

func bareKey(key string) bool {
	return key != "" && !strings.ContainsFunc(key, func(r rune) bool { return r > 0x7f || !isBare(byte(r)) })
}

// display returns a path as an operator reads it: without the numbers of
// tables, since the line says which one is meant.
func display(path string) string {
	var b strings.Builder
	quoted, indexed := false, false
	for i := 0; i < len(path); i++ {
		c := path[i]
		switch {
		case quoted && c == '\\':
			b.WriteByte(c)
			i++
			c = path[i]
		case c == '"':
			quoted = !quoted
		case !quoted && c == '[':
			indexed = true
		}
		if !indexed {
			b.WriteByte(c)
		}
		if !quoted && c == ']' {
			indexed = false
		}
	}
	return b.String()
}

// line returns where the key stands; if it doesn't, where its table does.
func (d *document) line(path string) int {
	for path != "" {
		if n := d.lines[path]; n > 0 {
			return n
		}
		path = path[:max(strings.LastIndexAny(path, ".["), 0)]
	}
	return 0
}

// readDocument reads TOML. What is broken is one problem: nothing behind it
// can be trusted.
func readDocument(name string, data []byte) (*document, *Problem) {
	root, err := decodeTOML(string(data))
	if err != nil {
		return nil, syntaxProblem(name, err)
	}
	return &document{name: name, root: root, lines: lineIndex(data)}, nil
}

var errInsideTOML = errors.New("the TOML library failed on it")

// decodeTOML decodes with the library, which panics on what it believes to be
// its own bugs.
func decodeTOML(data string) (root map[string]any, err error) {
	defer func() {
		if recover() != nil {
			err = errInsideTOML
		}
	}()
	_, err = toml.Decode(data, &root)
	return root, err
}

// syntaxes says in our words what the library says in its own, by how its
// message begins or what it contains. Its words quote from the file, where a
// secret may stand; so none of them is passed on.
var syntaxes = [...]struct{ sign, message, remedy string }{
	{"has already been defined", "the key or table is given twice", "keep one"},
	{"already created", "the key or table is given twice", "keep one"},
	{"invalid escape", `a \ within "…" begins an escape, and this is none`, `put a Windows path in '…', where \ is just itself`},
	{"hexadecimal digits after", `a \ within "…" begins an escape, and this is none`, `put a Windows path in '…', where \ is just itself`},
	{"Escaped character", `a \ within "…" begins an escape, and this is none`, `put a Windows path in '…', where \ is just itself`},
	{"strings cannot contain newlines", "the text is not closed on its line", `end it with the quote that it began with`},
	{"unexpected EOF", "the file ends in the middle of a value or a key", "close the quote or bracket that is open"},
	{"expected value but found", "what follows the = is no value", `put text, durations, sizes and dates in "…"`},
	{"to end with a newline", "something follows the value on its line", `begin a new line, or put the whole value in "…"`},
	{"expected '.' or '='", "the key is not followed by =", "write key = value; names of keys have no spaces"},
	{"table", "the table's name is not well formed", "write [name] or [[name]], both brackets closed"},
	{"expected a comma", "a comma or the closing bracket is missing", "separate items by commas, and close the bracket"},
	{"unexpected comma", "there is one comma too many", "remove it"},
	{"control characters", "there is a control character in the file", "remove it"},
	{"UTF-8", "the file is not UTF-8", "save it as UTF-8"},
	{"key name appears blank", "there is no key before the =", "write key = value"},
	{"out of range", "the number is too large", "write a smaller one"},
	{"nvalid", "the number or date is not well formed", `write a plain number; put durations, sizes and dates in "…"`},
	{"digit", "the number is not well formed", `write a plain number; put text, durations and sizes in "…"`},
	{"number", "the number is not well formed", `write a plain number; put text, durations and sizes in "…"`},
}

func syntaxProblem(name string, err error) *Problem {
	p := &Problem{File: name, Message: "this is not TOML", Remedy: "see https://toml.io for how it is written"}
	pe, ok := errors.AsType[toml.ParseError](err)
	if !ok {
		return p
	}
	p.Line = max(pe.Position.Line, 1)
	// Broken TOML may take anything for a key, a secret as well: only our own
	// keys are named.
	if _, known := schema()[pe.LastKey]; known {
		p.Key = pe.LastKey
	}
	for _, s := range syntaxes {
		if strings.Contains(pe.Message, s.sign) {
			p.Message, p.Remedy = s.message, s.remedy
			break
		}
	}
	return p
}

// kind names the type of a decoded TOML value.
func kind(v any) string {
	switch v.(type) {
	case string:
		return "text"
	case int64:
		return "a whole number"
	case float64:
		return "a number with a point"
	case bool:
		return "true or false"
	case []any:
		return "a list"
	case map[string]any:
		return "a table"
	case []map[string]any:
		return "a list of tables"
	}
	return "a date or time"
}
