package https

import (
	"bytes"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// maxQuoted is how much of an answer an error quotes, in bytes.
const maxQuoted = 200

// secrets are the strings that a receiver's answer must not carry into an error.
type secrets []string

// newSecrets collects all that could be one: receivers take tokens in
// headers, in the path (Sumo Logic) and in the query (Datadog).
func newSecrets(c Config, u *url.URL) secrets {
	var s secrets
	add := func(v string, least int) {
		if len(v) >= least {
			s = append(s, v)
		}
	}
	add(c.Token, 1)
	add(c.Password, 1)
	add(c.OAuth2.ClientSecret, 1)
	add(url.QueryEscape(c.OAuth2.ClientSecret), 1)
	if c.Username != "" {
		add(basic(c.Username, c.Password), 1)
	}
	for _, v := range c.Headers {
		add(v, 6)
		for part := range strings.FieldsSeq(v) { // "Splunk <token>"
			add(part, 8)
		}
	}
	for part := range strings.SplitSeq(u.Path, "/") {
		add(part, 16)
	}
	for part := range strings.SplitSeq(u.EscapedPath(), "/") {
		add(part, 16)
	}
	for _, values := range u.Query() {
		for _, v := range values {
			add(v, 6)
			add(url.QueryEscape(v), 6)
		}
	}
	// Longest first: a secret may be part of another.
	slices.SortFunc(s, func(a, b string) int { return len(b) - len(a) })
	return slices.Compact(s)
}

// hide returns text without the secrets.
func (s secrets) hide(text []byte) []byte {
	for _, v := range s {
		text = bytes.ReplaceAll(text, []byte(v), []byte("[hidden]"))
	}
	return text
}

// quote returns text as one line of at most limit bytes of printable
// characters, all else escaped as Go does.
func quote(text []byte, limit int) string {
	out := make([]byte, 0, limit)
	for text = bytes.TrimSpace(text); len(text) > 0; {
		r, n := utf8.DecodeRune(text)
		var esc string
		switch {
		case r == utf8.RuneError && n == 1:
			esc = `\x` + strconv.FormatUint(uint64(text[0])|0x100, 16)[1:]
		case strconv.IsPrint(r):
			esc = string(r)
		default:
			q := strconv.QuoteRune(r)
			esc = q[1 : len(q)-1]
		}
		if len(out)+len(esc) > limit-len("…") {
			return string(append(out, "…"...))
		}
		out = append(out, esc...)
		text = text[n:]
	}
	return string(out)
}

// cleaned is an error whose text quotes the other side: what net/http says of a
// malformed answer, for one.
type cleaned struct {
	text string
	err  error
}

func (e *cleaned) Error() string { return e.text }
func (e *cleaned) Unwrap() error { return e.err }

// clean returns err with a text that is one line and holds no secret.
func (s secrets) clean(err error) error {
	const limit = 500
	if text := quote(s.hide([]byte(err.Error())), limit); text != err.Error() {
		return &cleaned{text, err}
	}
	return err
}
