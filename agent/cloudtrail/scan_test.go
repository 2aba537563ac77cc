package cloudtrail

import (
	"bytes"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
	"pgregory.net/rapid"
)

// oracleOptions make jsontext accept what a scanner accepts, and invalid UTF-8
// in strings, which is looked for apart: jsontext's own check would refuse
// escapes of lone surrogates, too, which are within RFC 8259's grammar.
var oracleOptions = []jsontext.Options{jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true)}

// oracleValue returns the value that b begins with, as jsontext sees it.
func oracleValue(b []byte) (jsontext.Value, bool) {
	v, err := jsontext.NewDecoder(bytes.NewReader(b), oracleOptions...).ReadValue()
	return v, err == nil && utf8.Valid(v)
}

// checkValue holds a scanner against jsontext. The bytes get a space behind,
// for at their end a number has no end yet.
func checkValue(t interface {
	Helper()
	Errorf(string, ...any)
}, in []byte) {
	t.Helper()
	b := append(bytes.Clone(in), ' ')
	var s scanner
	end, bad := s.value(b, 0)
	want, ok := oracleValue(b)
	if ok != (bad == sound) {
		t.Errorf("%.200q: scanner says %v, jsontext %v", in, bad, ok)
	} else if ok {
		if got := bytes.TrimLeft(b[:end], " \t\r\n"); !bytes.Equal(got, want) {
			t.Errorf("%.200q: scanner ends at %d after %.200q, jsontext after %.200q", in, end, got, want)
		}
		if id, alt, at := oracleMembers(want); id != s.text(b, s.eventID) || alt != s.text(b, s.altID) || at != s.text(b, s.eventTime) {
			t.Errorf("%.200q: scanner found %q %q %q, jsontext %q %q %q", in,
				s.text(b, s.eventID), s.text(b, s.altID), s.text(b, s.eventTime), id, alt, at)
		}
	}
	// A value that is cut is short, wherever it is cut, until it is broken.
	for i := range min(len(in), 200, 2_000_000/(len(in)+1)) {
		if _, cut := s.value(b[:i], 0); cut != short && (bad == sound || cut == sound) && i < end {
			t.Errorf("%.200q: cut at %d the scanner says %v", in, i, cut)
		}
	}
}

func (s *scanner) text(b []byte, x span) string { return string(b[x.from:x.to]) }

// oracleMembers returns the top-level members that a scanner looks for.
func oracleMembers(v jsontext.Value) (id, alt, at string) {
	if v.Kind() != '{' {
		return "", "", ""
	}
	d := jsontext.NewDecoder(bytes.NewReader(v), oracleOptions...)
	_, _ = d.ReadToken()
	found := map[string]string{}
	for d.PeekKind() == '"' {
		name, _ := d.ReadValue()
		key := string(name)
		value, _ := d.ReadValue()
		if _, again := found[key]; !again && value.Kind() == '"' {
			found[key] = string(value[1 : len(value)-1])
		}
	}
	return found[`"eventID"`], found[`"eventId"`], found[`"eventTime"`]
}

// grammar are values at the edges of RFC 8259's grammar, both sides of each.
var grammar = []string{
	``, ` `, `{}`, `[]`, ` {}`, "\t\r\n[ ]", `{ }`, `{"a":1}`, `{"a" : 1 , "b" : [ 1 , 2 ] }`, "{\n\"a\"\n:\n1\n}",
	`{`, `}`, `[`, `]`, `{]`, `[}`, `{"a"}`, `{"a":}`, `{"a":1,}`, `{,}`, `{,"a":1}`, `{"a":1 "b":2}`, `{"a":1,,"b":2}`, `{a:1}`, `{a":1}`, `{"a":1,b":2}`, `{"a":1, b":2}`, `{'a':1}`,
	`{"a":1}}`, `[1,]`, `[,1]`, `[1 2]`, `[1,,2]`, `[1]]`, `[[]`, `[[1],[2,[3]]]`, `{"a":{"b":{"c":[]}}}`, `{"a":[}`, `{1:2}`, `{"a"::1}`,
	`0`, `-0`, `0.0`, `1.688560107857E9`, `9.82222E-5`, `9007199254740993`, `1e5`, `1E+5`, `-1.5e-10`, `123456789012345678901234567890`,
	`-`, `01`, `-01`, `1.`, `.5`, `1.e5`, `1e`, `1e+`, `+1`, `0x10`, `1_000`, `NaN`, `Infinity`, `-Infinity`, `1a`, `00`, `--1`,
	`true`, `false`, `null`, `tru`, `True`, `nul`, `nulll`, `falsey`, `t`, `truefalse`, `[true,false,null]`, `[truex]`,
	`""`, `"a"`, `"`, `"a`, `"a\"`, `"\"\\\/\b\f\n\r\t"`, `"\u0041\u00e9\u003d\uD83D\uDE00"`, `"\ud800"`, `"\udc00\ud800"`, `"\u12"`, `"\u12g4"`,
	`"\x41"`, `"\a"`, `"\'"`, `"\U0041"`, "\"\x00\"", "\"\x1f\"", "\"\x7f\"", "\"a\nb\"", "\"a\tb\"", `"é’日本語😀"`,
	"\"\xff\"", "\"\xc3\"", "\"\xc3\x28\"", "\"\xed\xa0\x80\"", "\"\xf4\x90\x80\x80\"", "\"\xc0\xaf\"", "\"\xe2\x82\"", "\"\xf0\x9f\x98\"", "\"\x80\"",
	"\"aaaaaaaaaaaaaaaa\xff\"", "\"aaaaaaaaaaaa\x80aaaa\"", `"aaaaaaaaaaaaaaaaé"`, `{"é":"é"}`, "{\"\xff\":1}", "\xff", "\xef\xbb\xbf{}", "{\u00a0}", "[1\u2028]", "\x0b{}", "{}\x00",
	`{"eventID":"x"}`, `{"eventId":"y","eventID":"x","eventTime":"z"}`, `{"eventID":"x","eventID":"y"}`, `{"eventID":null,"eventID":"y"}`,
	`{"eventID":["x"]}`, `{"eventID":{"eventID":"x"}}`, `{"a":{"eventID":"x"}}`, `[{"eventID":"x"}]`, `{"a":"\"eventID\":\"x\""}`,
	`{"event\u0049D":"x"}`, `{"\"eventID":"x"}`, `{"eventID":1,"a":"b"}`, `{"eventID":"","eventTime":"\""}`, `{"eventid":"x"}`, `{"eventID" : "x"}`,
	`// c
{}`, `/* c */{}`, `{"a":1/**/}`, `#`, `{"__proto__":{},"":0}`,
}

func TestScannerAgreesWithJSONText(t *testing.T) {
	for _, in := range grammar {
		checkValue(t, []byte(in))
		checkValue(t, []byte(`{"eventTime":`+in+`,"eventID":"`+"1234567890"+`"}`))
		checkValue(t, []byte(`[`+in+`]`))
	}
}

// Each byte is a hit or not, wherever it stands among eight.
func TestScannerEveryByte(t *testing.T) {
	for c := range 256 {
		for at := range 8 {
			b := []byte(`"abcdefghijklmnop"`)
			b[1+at] = byte(c)
			checkValue(t, b)
			b[2+at] = byte(c)
			checkValue(t, b)
		}
	}
}

func TestScannerDepth(t *testing.T) {
	for _, depth := range []int{1, 2, 63, 64, 65, 127, 128, 129, 1000, maxDepth, maxDepth + 1} {
		for _, pair := range [][2]string{{`[`, `]`}, {`{"a":`, `}`}, {`[{"a":`, `}]`}} {
			n := depth
			if len(pair[1]) == 2 {
				n = depth / 2
			}
			checkDeep := strings.Repeat(pair[0], n) + `0` + strings.Repeat(pair[1], n)
			checkValue(t, []byte(checkDeep))
			// A bracket of the wrong kind, at each word of the stack.
			for at := len(checkDeep) - n*len(pair[1]); at < len(checkDeep); at += 61 * len(pair[1]) {
				b := []byte(checkDeep)
				b[at] ^= ']' ^ '}'
				checkValue(t, b)
			}
		}
	}
}

// drawJSON draws a value, more often than not valid, in all the ways that
// white space, escapes and nesting allow.
func drawJSON(t *rapid.T, depth int) string {
	space := rapid.SampledFrom([]string{"", "", "", "", " ", "\n", "\r\n\t", "  \n "})
	str := func() string {
		return `"` + strings.Join(rapid.SliceOfN(rapid.SampledFrom([]string{
			"a", "eventID", "eventId", "eventTime", "Records", `\"`, `\\`, `\u003d`, `\ud800`, "é", "日本", "😀",
			"12345678", `{`, `}`, `[`, `,`, `:`, ` `, "\x7f",
		}), 0, 4).Draw(t, "string"), "") + `"`
	}
	name := func() string {
		return rapid.OneOf(
			rapid.SampledFrom([]string{`"eventID"`, `"eventId"`, `"eventTime"`, `"Tag"`, `"tag"`, `"Records"`, `""`}),
			rapid.Custom(func(*rapid.T) string { return str() }),
		).Draw(t, "name")
	}
	kind := rapid.IntRange(0, 7).Draw(t, "kind")
	if depth > 5 {
		kind %= 4
	}
	sp := func() string { return space.Draw(t, "space") }
	switch kind {
	case 0, 1:
		return str()
	case 2:
		return rapid.SampledFrom([]string{"0", "0.0", "-1", "1.688E9", "9007199254740993", "1e-5", "70.0"}).Draw(t, "number")
	case 3:
		return rapid.SampledFrom([]string{"true", "false", "null", "{}", "[]"}).Draw(t, "literal")
	case 4, 5:
		var parts []string
		for range rapid.IntRange(0, 4).Draw(t, "elements") {
			parts = append(parts, sp()+drawJSON(t, depth+1)+sp())
		}
		return "[" + sp() + strings.Join(parts, ",") + "]"
	default:
		var parts []string
		for range rapid.IntRange(0, 5).Draw(t, "members") {
			parts = append(parts, sp()+name()+sp()+":"+sp()+drawJSON(t, depth+1)+sp())
		}
		return "{" + sp() + strings.Join(parts, ",") + "}"
	}
}

// damage changes, takes out or puts in a byte, sometimes.
func damage(t *rapid.T, in string) []byte {
	b := []byte(in)
	if len(b) == 0 || rapid.Bool().Draw(t, "whole") {
		return b
	}
	at := rapid.IntRange(0, len(b)-1).Draw(t, "at")
	c := rapid.SampledFrom([]byte("\"\\{}[],:0a\n \x00\xff\xc3")).Draw(t, "byte")
	switch rapid.IntRange(0, 2).Draw(t, "how") {
	case 0:
		b[at] = c
	case 1:
		b = append(b[:at], b[at+1:]...)
	default:
		b = append(b[:at], append([]byte{c}, b[at:]...)...)
	}
	return b
}

func TestScannerProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) { checkValue(t, damage(t, drawJSON(t, 0))) })
}

func FuzzScan(f *testing.F) {
	for _, in := range grammar {
		f.Add([]byte(in))
	}
	f.Add([]byte(sampleRecord(1)))
	f.Fuzz(func(t *testing.T, in []byte) { checkValue(t, in) })
}
