package filter

import (
	"bytes"
	"math"
	"strconv"

	"github.com/go-json-experiment/json/jsontext"
)

// decode returns a value of any kind as expressions know it: objects and
// lists, strings, true and false, nil, and numbers exactly; and false if it
// can't be read.
func (s *scratch) decode(raw []byte) (any, bool) {
	switch raw[0] {
	case '"':
		return s.str(raw), true
	case 't', 'f':
		return raw[0] == 't', true
	case 'n':
		return nil, true
	case '{', '[':
		d := jsontext.NewDecoder(bytes.NewBuffer(raw[:len(raw):len(raw)]),
			jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
		v, err := decodeNext(d)
		return v, err == nil
	}
	return number(raw), true
}

func decodeNext(d *jsontext.Decoder) (any, error) {
	switch d.PeekKind() {
	case '{':
		if _, err := d.ReadToken(); err != nil {
			return nil, err
		}
		m := map[string]any{}
		for d.PeekKind() != '}' {
			name, err := d.ReadToken()
			if err != nil {
				return nil, err
			}
			key := name.String()
			v, err := decodeNext(d)
			if err != nil {
				return nil, err
			}
			if _, twice := m[key]; !twice {
				m[key] = v
			}
		}
		_, err := d.ReadToken()
		return m, err
	case '[':
		if _, err := d.ReadToken(); err != nil {
			return nil, err
		}
		list := []any{}
		for d.PeekKind() != ']' {
			v, err := decodeNext(d)
			if err != nil {
				return nil, err
			}
			list = append(list, v)
		}
		_, err := d.ReadToken()
		return list, err
	case '0':
		v, err := d.ReadValue()
		if err != nil {
			return nil, err
		}
		return number(v), nil
	}
	t, err := d.ReadToken()
	if err != nil {
		return nil, err
	}
	switch t.Kind() {
	case '"':
		return t.String(), nil
	case 't', 'f':
		return t.Bool(), nil
	}
	return nil, nil
}

// maxDigits is how many digits of a decimal number a float64 always keeps.
const maxDigits = 15

// number returns a number that is not changed by the way it is kept: an int,
// a float64 if it has no more digits than that keeps, and otherwise its text,
// since an expression has no number that it could be.
func number(raw []byte) any {
	if n, err := strconv.ParseInt(string(raw), 10, strconv.IntSize); err == nil {
		return int(n)
	}
	digits, leading := 0, true
	for _, c := range raw {
		if c == 'e' || c == 'E' {
			break
		}
		if c >= '0' && c <= '9' {
			if leading = leading && c == '0'; !leading {
				digits++
			}
		}
	}
	if f, err := strconv.ParseFloat(string(raw), 64); err == nil && digits <= maxDigits && (f != 0 || digits == 0) && !math.IsInf(f, 0) {
		return f
	}
	return string(raw)
}
