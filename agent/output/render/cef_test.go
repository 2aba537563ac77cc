package render

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"unicode"

	"pgregory.net/rapid"

	"github.com/trailpoll/trailpoll/agent/output/outputtest"
	"github.com/trailpoll/trailpoll/agent/record"
)

// parseCEF reads a message as the CEF Implementation Standard says, and as
// receivers do that know it: seven fields between pipes that no backslash
// stands before, then keys, each behind a space and before an equals sign.
func parseCEF(msg []byte) (header []string, extension map[string]string, err error) {
	rest, ok := bytes.CutPrefix(msg, []byte("CEF:"))
	if !ok {
		return nil, nil, errors.New("it does not begin as CEF does")
	}
	var field []byte
	for len(header) < 7 {
		if len(rest) == 0 {
			return nil, nil, errors.New("the header ends too early")
		}
		switch c := rest[0]; {
		case c == '\\' && len(rest) > 1 && (rest[1] == '\\' || rest[1] == '|'):
			field = append(field, rest[1])
			rest = rest[1:]
		case c == '\\':
			return nil, nil, errors.New("a lone backslash in the header")
		case c == '|':
			header, field = append(header, string(field)), nil
		default:
			field = append(field, c)
		}
		rest = rest[1:]
	}
	extension = map[string]string{}
	// Where keys are: what stands between a space, or the beginning, and an
	// equals sign that is not escaped.
	type key struct{ from, to int }
	var keys []key
	for i := 0; i < len(rest); i++ {
		switch rest[i] {
		case '\\':
			i++
			if i == len(rest) || !strings.ContainsRune(`\=nr`, rune(rest[i])) {
				return nil, nil, errors.New("a lone backslash in the extension")
			}
		case '=':
			keys = append(keys, key{bytes.LastIndexByte(rest[:i], ' ') + 1, i})
		}
	}
	for n, k := range keys {
		end := len(rest)
		if n+1 < len(keys) {
			end = keys[n+1].from - 1
		}
		name := string(rest[k.from:k.to])
		if _, twice := extension[name]; twice || name == "" || strings.ContainsFunc(name, func(r rune) bool {
			return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9')
		}) {
			return nil, nil, fmt.Errorf("key %q is there twice, or is none", name)
		}
		extension[name] = strings.NewReplacer(`\\`, `\`, `\=`, `=`, `\n`, "\n", `\r`, "\r").Replace(string(rest[k.to+1 : end]))
	}
	return header, extension, nil
}

// cefSound reports what is wrong with the message of a record: it must parse,
// have no key twice, and every member must be there.
func cefSound(msg []byte, rec *record.Record) error {
	header, ext, err := parseCEF(msg)
	if err != nil {
		return err
	}
	if header[0] != "0" || header[1] != "AWS" || header[2] != "CloudTrail" {
		return fmt.Errorf("header %q", header)
	}
	w := newWorker()
	members, err := w.members(nil, rec.Raw)
	if err != nil {
		return err
	}
	for k, v := range ext {
		isJSON := k == "AWSCloudTrailUnmapped" || k == "trailpollLabels" || k == "AWSCloudTrailRequestParameters" && strings.HasPrefix(v, "{")
		if isJSON && !valid([]byte(v)) {
			return fmt.Errorf("%s is no JSON: %s", k, v)
		}
	}
	for _, m := range members {
		if m.kind() == 'n' || string(m.value) == `""` {
			continue
		}
		want := printed(m.value)
		found := strings.Contains(ext["AWSCloudTrailUnmapped"], printed(m.whole))
		for _, v := range ext {
			found = found || v == want
		}
		for _, v := range header {
			found = found || v == want
		}
		if m.plain == "eventTime" {
			found = found || ext["rt"] != ""
		}
		if !found {
			return fmt.Errorf("%s = %s is gone", m.name, want)
		}
	}
	return nil
}

// printed is how a value comes out of a CEF parser: text without quotes, and
// what is no printable text as JSON writes it.
func printed(value []byte) string {
	text := value
	if value[0] == '"' && valid(value) {
		text, _ = unquote(value)
	} else {
		text = bytes.ReplaceAll(text, []byte("\t"), []byte(" "))
	}
	var b strings.Builder
	for _, r := range string(text) {
		if r != '\n' && r != '\r' && (r < ' ' || r >= 0x7f && r < 0xa0 || r == '\u2028' || r == '\u2029') {
			fmt.Fprintf(&b, `\u%04x`, r)
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}

func TestCEFLosesNothing(t *testing.T) {
	r := newRenderer(t, Config{Record: CEF})
	recs := append(corpusRecords(2000), goldenRecords()...)
	for _, raw := range []string{
		`{"eventVersion":"1|\\","eventVersion":"second","eventSource":"a|b\\c=d","eventName":"x=y|z\\","eventName":"again"}`,
		`{"eventType":"t","requestParameters":{	"a"	:	[1,	2]},"x y":{	"b":	1}}`,
		`{"eventVersion":"1\n2","eventName":"a\u0000b\nCEF:0|x\u2028","eventSource":"s\r","eventType":"\u0085"}`,
		`{"trailpoll":1,"trailpoll":2,"Foo":1,"foo":2,"unmapped":3,"Unmapped":4}`,
		`{"errorMessage":"a act=forged cs1=forged\\=x \\","userAgent":" leading=","sourceIPAddress":"192.0.2.1","sourceIPAddress":"::1"}`,
		`{"a":"` + "\u0085\u2028\x7f" + `\u0000\u001f","b":{"c":"` + "\u2029" + `"}}`,
	} {
		recs = append(recs, record.Record{Object: object(), Raw: []byte(raw)})
	}
	for _, rec := range outputtest.OddRecords() {
		if rec.Raw[0] == '{' {
			recs = append(recs, rec)
		}
	}
	for i, rec := range recs {
		out, err := r.Append(nil, &rec, 0)
		if err == nil {
			err = cefSound(out, &rec)
		}
		if at := bytes.IndexFunc(out, func(r rune) bool { return unicode.IsControl(r) || r == '\u2028' || r == '\u2029' }); at >= 0 {
			t.Fatalf("record %d: a control character: %q", i, out[max(at-40, 0):at+10])
		}
		if err != nil {
			t.Fatalf("record %d: %v\n%.600s\n%.900s", i, err, rec.Raw, out)
		}
	}
}

func TestCEFProperty(t *testing.T) {
	r := newRenderer(t, Config{Record: CEF})
	rapid.Check(t, func(t *rapid.T) {
		rec := drawRecord(t)
		out, err := r.Append(nil, &rec, 0)
		if err == nil {
			err = cefSound(out, &rec)
		}
		if err != nil {
			t.Fatalf("%v\n%s\n%s", err, rec.Raw, out)
		}
	})
}

func TestCEFMapping(t *testing.T) {
	rec := goldenRecords()[1]
	out, err := newRenderer(t, Config{Record: CEF}).Append(nil, &rec, 0)
	if err != nil {
		t.Fatal(err)
	}
	header, ext, err := parseCEF(out)
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(header, "|"); got != "0|AWS|CloudTrail|1.11|ec2.amazonaws.com:TerminateInstances|TerminateInstances|5" {
		t.Error(got)
	}
	for key, want := range map[string]string{
		"externalId": "6f1c6a3e-0000-4000-8000-000000000002", "act": "TerminateInstances", "outcome": "failure", "rt": "1793743268000",
		"reason": "Client.UnauthorizedOperation", "suser": "bob", "spriv": "IAMUser", "cs1": "111122223333", "cs1Label": "Account",
		"c6a2": "2001:db8::1", "cs2": "us-east-1", "cs6": "AKIAIOSFODNN7EXAMPLE", "trailpollAccountName": `payments "prod"`,
		"msg": "not allowed:\n act=Forged|x \\ \\u0000 \\u2028",
	} {
		if ext[key] != want {
			t.Errorf("%s is %q, want %q", key, ext[key], want)
		}
	}
	var unmapped map[string]json.RawMessage
	if err := json.Unmarshal([]byte(ext["AWSCloudTrailUnmapped"]), &unmapped); err != nil || len(unmapped) != 1 {
		t.Errorf("%v of %s", err, ext["AWSCloudTrailUnmapped"])
	}
}
