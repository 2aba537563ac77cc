package main

import (
	"errors"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/trailpoll/trailpoll/agent/config"
)

// The questions: what has to be there is asked again, an empty line takes what
// is proposed, a flag that was given is not asked for.
func TestInitQuestions(t *testing.T) {
	var a answers
	for _, q := range a.questions() {
		*q.value = q.preset
	}
	a.region = "eu-central-1"
	in := strings.NewReader("\nlogs\n\n\n-7d\nsyslog\n\nsiem.example.com:601\ntcp\n")
	var out strings.Builder
	if err := a.complete(in, &out, func(flag string) bool { return flag == "region" }); err != nil {
		t.Fatal(err)
	}
	want := answers{bucket: "logs", region: "eu-central-1", start: "-7d", output: "syslog", address: "siem.example.com:601", transport: "tcp"}
	if a != want {
		t.Errorf("%+v, want %+v", a, want)
	}
	if n := strings.Count(out.String(), "Bucket that"); n != 2 {
		t.Errorf("the bucket was asked for %d times:\n%s", n, out.String())
	}
	if strings.Contains(out.String(), "URL") || strings.Contains(out.String(), "region") {
		t.Errorf("asked what nobody needs:\n%s", out.String())
	}
}

func TestInitQuestionsEnd(t *testing.T) {
	var a answers
	if err := a.complete(strings.NewReader("logs\n"), &strings.Builder{}, func(string) bool { return false }); err == nil {
		t.Error("half the answers are taken")
	}
}

// Whatever is answered stands in the configuration as it was answered, or the
// configuration is refused.
func TestInitText(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := answers{bucket: "logs", region: "auto", start: "-24h", output: "https", url: "https://siem.example.com/"}
		a.token = rapid.String().Draw(t, "token")
		a.prefix = rapid.String().Draw(t, "prefix")
		conf, _, err := config.Parse("init", []byte(a.text()), config.Env{})
		if errs, bad := errors.AsType[config.Errors](err); bad {
			for _, p := range errs {
				if p.Key == "" {
					t.Fatalf("no TOML: %v\n%s", p, a.text())
				}
			}
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		if got := conf.Outputs[0].HTTPS.Token.Reveal(); got != a.token {
			t.Errorf("token %q became %q", a.token, got)
		}
		if got := conf.Sources[0].Bucket.Prefix; got != a.prefix {
			t.Logf("prefix %q became %q", a.prefix, got) // it may be made tidy
		}
	})
}
