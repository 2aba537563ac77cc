package config

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// Whatever way a Config is printed, no secret of it is.
func TestInvariant10_SecretsAreNotPrinted(t *testing.T) {
	text := `
[agent]
listen_token = "hunter2"
proxy = "http://user:hunter2@proxy.example.com:3128"
[[source]]
name = "s"
bucket = "acme-logs"
[source.credentials]
type = "static"
access_key_id = "AKIAIOSFODNN7EXAMPLE"
secret_access_key = "hunter2"
session_token = "hunter2"
[[output]]
name = "o"
type = "https"
url = "https://siem.example.com/hunter2?token=hunter2"
token = "hunter2"
headers = { X-Key = "hunter2" }
`
	c, _, err := Parse("f", []byte(text), Env{})
	if err != nil {
		t.Fatal(err)
	}
	// fmt can't call methods on what is not exported.
	hidden := struct{ c Config }{*c}
	var printed []string
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		for _, v := range []any{c, *c, hidden, c.Agent.ListenToken, &c.Agent.ListenToken, c.Agent.Proxy, c.Outputs[0].HTTPS.Headers} {
			printed = append(printed, fmt.Sprintf(verb, v))
		}
	}
	j, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	printed = append(printed, string(j), fmt.Sprintf("%x", "hunter2")) // the last shows that the search below can find
	hex := fmt.Sprintf("%x", "hunter2")
	for i, s := range printed {
		if found := strings.Contains(s, "hunter2") || strings.Contains(strings.ToLower(s), hex); found != (i == len(printed)-1) {
			t.Errorf("number %d: %s", i, s)
		}
	}
	if !strings.Contains(string(j), `"[redacted]"`) || !strings.Contains(string(j), `"http://proxy.example.com:3128"`) {
		t.Errorf("%s", j)
	}
	if c.Agent.ListenToken.Reveal() != "hunter2" || c.Agent.Proxy.Reveal() != "http://user:hunter2@proxy.example.com:3128" ||
		c.Outputs[0].HTTPS.Headers["X-Key"].Reveal() != "hunter2" {
		t.Error("Reveal does not return the value")
	}
}

func TestRedactURL(t *testing.T) {
	for text, want := range map[string]string{
		"": "", "https://a.example.com/": "https://a.example.com", "https://u:p@a.example.com:8/x?y#z": "https://a.example.com:8/…",
		"https://a.example.com?k=v": "https://a.example.com/…", "no url": "[redacted]", "https://a b": "[redacted]", "mailto:x": "[redacted]",
	} {
		if got := NewURL(text).String(); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

func TestReferences(t *testing.T) {
	e := testEnv()
	for text, want := range map[string]string{
		"plain": "plain", "": "", "env:SECRET": "from-env", "file:/run/secret": "from-file", "ENV:SECRET": "ENV:SECRET",
	} {
		if got, literal, f := e.resolve(text); got != want || f != nil || literal != !strings.Contains(want, "from-") {
			t.Errorf("%q: %q, %v, %v", text, got, literal, f)
		}
	}
	for _, text := range []string{"env:", "env:NONE", "env:EMPTY", "env:a b", "file:", "file:/run/none", "file:/run/empty"} {
		for _, env := range []Env{e, {}} {
			if got, _, f := env.resolve(text); f == nil || got != "" {
				t.Errorf("%q: %q", text, got)
			}
		}
	}
	dir := t.TempDir()
	long := filepath.Join(dir, "long")
	if err := os.WriteFile(long, make([]byte, maxSecret+1), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, f := SystemEnv().resolve("file:" + long); f == nil {
		t.Error("a secret of more than 64 KiB is taken")
	}
}

// However the file is broken, nothing that is said of it shows a secret.
func FuzzInvariant10_ParseRevealsNothing(f *testing.F) {
	for _, key := range []string{
		"token", "password", "headers.X", "oauth2.client_secret", "url", "tokn", "token.x", "[output", "compression = 1 #",
	} {
		for _, value := range []string{`"%s"`, `"%s`, `%s`, `'''%s''`, `["%s"]`, `{ a = "%s" }`, `"env:%s !"`, `"%s\n"`, `"\%s"`, `"a" %s`, `0%s`, `"https://u:%s@h/"`} {
			f.Add(key, value)
		}
	}
	f.Fuzz(func(t *testing.T, key, value string) {
		const secret = "zq7Xhunter2Jw"
		// Where a key is expected the file itself calls it a key; so the secret
		// is only put where a value begins.
		if strings.ContainsAny(value, "=\r\n") {
			return
		}
		text := "[[source]]\nname='s'\nbucket='acme-logs'\n[[output]]\nname='o'\ntype='https'\nurl='https://h/'\n" +
			key + " = " + strings.ReplaceAll(value, "%s", secret) + "\n"
		_, warnings, err := Parse("f", []byte(text), Env{})
		said := fmt.Sprint(warnings, err)
		if strings.Contains(said, secret) && isSecretKey(key) {
			t.Fatalf("%s\nof\n%s", said, text)
		}
	})
}

func isSecretKey(key string) bool {
	switch key {
	case "token", "password", "headers.X", "oauth2.client_secret", "url":
		return true
	}
	return false
}

// No text makes Parse panic, and what it says has one line a problem.
func FuzzParse(f *testing.F) {
	f.Add([]byte(example))
	f.Add([]byte(uncommented()))
	files, _ := filepath.Glob("testdata/bad/*.toml")
	for _, file := range files {
		if data, err := os.ReadFile(file); err == nil {
			f.Add(data)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c, _, err := Parse("f", data, testEnv())
		if (c == nil) != (err != nil) {
			t.Fatalf("%v beside %v", c, err)
		}
		if err == nil {
			if _, err := c.Validate(); err != nil {
				t.Fatalf("taken when read, refused when made: %v", err)
			}
			return
		}
		problems, ok := err.(Errors)
		if !ok || len(problems) == 0 {
			t.Fatalf("%T %v", err, err)
		}
		last := 0
		for _, p := range problems {
			if p.Line < last || strings.ContainsAny(p.String(), "\n\r\x1b\x00") {
				t.Fatalf("out of order or of more than one line: %s", strconv.Quote(p.String()))
			}
			last = p.Line
		}
	})
}
