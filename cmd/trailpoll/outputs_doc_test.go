package main

import (
	"io"
	"os"
	"strings"
	"testing"

	"github.com/trailpoll/trailpoll/agent/config"
)

// Every configuration in docs/outputs.md is one that the program takes, alone
// and all together.
func TestDocumentedOutputs(t *testing.T) {
	text, err := os.ReadFile("../../docs/outputs.md")
	if err != nil {
		t.Fatal(err)
	}
	const source = "[[source]]\nname = \"org-trail\"\nbucket = \"acme-cloudtrail-logs\"\n"
	env := config.Env{
		LookupEnv: func(string) (string, bool) { return "secret", true },
		ReadFile:  func(string) ([]byte, error) { return []byte("secret"), nil },
	}
	_, rest, found := strings.Cut(string(text), "```toml\n")
	n := 0
	for ; found; _, rest, found = strings.Cut(rest, "```toml\n") {
		block, after, whole := strings.Cut(rest, "```")
		if !whole {
			t.Fatal("a block without an end")
		}
		n++
		c, warnings, err := config.Parse("outputs.md", []byte(source+block), env)
		if err != nil || len(warnings) > 0 {
			t.Errorf("%v %v in\n%s", err, warnings, block)
		}
		for i := 0; c != nil && i < len(c.Outputs); i++ {
			o := &c.Outputs[i]
			if o.Type != config.TypeHTTPS || o.HTTPS.TLS.CAFile != "" || o.HTTPS.TLS.CertFile != "" {
				continue // files that are not here
			}
			out, err := wireOutput(&c.Agent, o, io.Discard)
			if err != nil {
				t.Errorf("%v in\n%s", err, block)
				continue
			}
			if err := out.Output.Close(); err != nil {
				t.Error(err)
			}
		}
		rest = after
	}
	if n < 8 {
		t.Errorf("only %d configurations", n)
	}
}
