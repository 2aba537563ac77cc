package corpus

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// expand appends text with each <name> in it replaced by something chosen for
// that name. The names stand in the switch below.
func (g *gen) expand(dst []byte, text string) []byte {
	for {
		i := strings.IndexByte(text, '<')
		if i < 0 {
			return append(dst, text...)
		}
		j := i + strings.IndexByte(text[i:], '>')
		dst = append(dst, text[:i]...)
		dst = g.fill(dst, text[i+1:j])
		text = text[j+1:]
	}
}

const (
	hexDigits   = "0123456789abcdef"
	upperDigits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
	base64Chars = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
)

var words = []string{
	"orders", "billing", "ledger", "search", "gateway", "reports", "archive", "staging", "metrics", "catalog",
	"payments", "identity", "mailer", "backup", "builds", "images", "sessions", "audit", "inventory", "pricing",
}

var people = []string{"alice", "bert", "chandra", "dana", "emil", "fatima", "goran", "hana", "ines", "jun"}

// fill appends a value for one name.
func (g *gen) fill(dst []byte, name string) []byte {
	switch name {
	case "account":
		return append(dst, g.account...)
	case "region":
		return append(dst, g.region...)
	case "uuid":
		return g.uuid(dst)
	case "word":
		return append(dst, words[g.IntN(len(words))]...)
	case "person":
		return append(dst, people[g.IntN(len(people))]...)
	case "ip": // the three documentation networks of RFC 5737
		dst = append(dst, [...]string{"192.0.2.", "198.51.100.", "203.0.113."}[g.IntN(3)]...)
		return strconv.AppendInt(dst, int64(1+g.IntN(254)), 10)
	case "digit":
		return append(dst, byte('0'+g.IntN(10)))
	case "n": // a small number
		return strconv.AppendInt(dst, int64(g.IntN(1000)), 10)
	case "bytes": // a size as S3's data events once wrote it
		return strconv.AppendFloat(dst, float64(g.IntN(100000)), 'f', 1, 64)
	case "hex8":
		return g.pick(dst, hexDigits, 8)
	case "hex17":
		return g.pick(dst, hexDigits, 17)
	case "request": // an S3 request id
		return g.pick(dst, upperDigits, 16)
	case "id2": // S3's x-amz-id-2
		return append(g.pick(dst, base64Chars, 75), '=')
	}
	panic(fmt.Sprintf("corpus: no such name: <%s>", name))
}

func (g *gen) pick(dst []byte, from string, n int) []byte {
	for range n {
		dst = append(dst, from[g.IntN(len(from))])
	}
	return dst
}

// uuid appends a random UUID (RFC 9562, version 4).
func (g *gen) uuid(dst []byte) []byte {
	a, b := g.Uint64(), g.Uint64()
	a = a&^0xf000 | 0x4000
	b = b&^(3<<62) | 2<<62
	h := make([]byte, 0, 32)
	for shift := 60; shift >= 0; shift -= 4 {
		h = append(h, hexDigits[a>>shift&15])
	}
	for shift := 60; shift >= 0; shift -= 4 {
		h = append(h, hexDigits[b>>shift&15])
	}
	for i, c := range h {
		if i == 8 || i == 12 || i == 16 || i == 20 {
			dst = append(dst, '-')
		}
		dst = append(dst, c)
	}
	return dst
}

// appendTime appends a time as CloudTrail writes it: RFC 3339, UTC, whole seconds.
func appendTime(dst []byte, t time.Time) []byte {
	return t.UTC().AppendFormat(dst, "2006-01-02T15:04:05Z")
}

// Unbroken returns raw less each run of JSON white space outside strings that
// holds a line break. It is written for clearness, as the measure of faster
// code. It expects valid JSON.
func Unbroken(raw []byte) []byte {
	var out []byte
	inString := false
	for i := 0; i < len(raw); i++ {
		c := raw[i]
		switch {
		case inString && c == '\\':
			out = append(out, c, raw[i+1])
			i++
			continue
		case c == '"':
			inString = !inString
		case !inString && isSpace(c):
			end := i
			for end < len(raw) && isSpace(raw[end]) {
				end++
			}
			if run := raw[i:end]; !bytes.ContainsAny(run, "\r\n") {
				out = append(out, run...)
			}
			i = end - 1
			continue
		}
		out = append(out, c)
	}
	return out
}

func isSpace(c byte) bool { return c == ' ' || c == '\t' || c == '\n' || c == '\r' }
