package main

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/trailpoll/trailpoll/agent/config"
	"github.com/trailpoll/trailpoll/agent/record"
)

// What stands in the configuration is what a receiver gets.
func TestWireHTTPS(t *testing.T) {
	for name, c := range map[string]struct {
		keys  string // %s is the receiver
		path  string
		auth  string
		body  []string // parts of it
		never string   // not in it
	}{
		"ndjson": {
			keys: `url = "%s/in"` + "\n" + `token = "T0K3N"`,
			path: "/in", auth: "Bearer T0K3N", body: []string{`{"a":0.0}` + "\n"}, never: "aws:cloudtrail",
		},
		"splunk": {
			keys: `url = "%s"` + "\n" + `format = "splunk-hec"` + "\n" + `token = "T0K3N"` + "\n" + `index = "aws"` + "\n" + `fields = { site = "fra" }`,
			path: "/services/collector/event", auth: "Splunk T0K3N",
			body: []string{`"sourcetype":"aws:cloudtrail","index":"aws","event":{"a":0.0}`, `"site":"fra"`, `"env":"prod"`},
		},
		"splunk, CEF": {
			keys: `url = "%s"` + "\n" + `format = "splunk-hec"` + "\n" + `record = "cef"` + "\n" + `sourcetype = ""`,
			path: "/services/collector/event", body: []string{`"event":"CEF:0|`}, never: "sourcetype",
		},
		"elastic, envelope": {
			keys: `url = "%s"` + "\n" + `format = "elastic-bulk"` + "\n" + `record = "envelope"` + "\n" + `index = "t-%%Y"` + "\n" + `username = "u"` + "\n" + `password = "p"`,
			path: "/_bulk", auth: "Basic dTpw",
			body: []string{`{"create":{"_index":"t-2026","_id":"id-1"}}` + "\n" + `{"id":"id-1"`, `"record":{"a":0.0}}` + "\n"},
		},
		"otlp, OAuth2": {
			keys: `url = "%[1]s"` + "\n" + `format = "otlp"` + "\n" + `fields = { site = "fra" }` + "\n[output.oauth2]\n" +
				`token_url = "%[1]s/token"` + "\n" + `client_id = "c"` + "\n" + `client_secret = "s"` + "\n" + `scopes = ["x", "y"]`,
			path: "/v1/logs", auth: "Bearer fresh x y", body: []string{`{"a":0.0}`, "fra", "id-1"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			var got *http.Request
			var content string
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/token" {
					w.Header().Set("Content-Type", "application/json")
					_, _ = fmt.Fprintf(w, `{"access_token":"fresh %s"}`, r.PostFormValue("scope"))
					return
				}
				all, _ := io.ReadAll(r.Body)
				got, content = r, string(all)
				_, _ = io.WriteString(w, `{"errors":false}`)
			}))
			defer server.Close()
			text := "[[source]]\nname = \"s\"\nbucket = \"acme-cloudtrail-logs\"\n[[output]]\nname = \"o\"\ntype = \"https\"\ncompression = \"none\"\n" +
				fmt.Sprintf(strings.ReplaceAll(c.keys, "%s", "%[1]s"), server.URL)
			conf, _, err := config.Parse("test.toml", []byte(text), config.Env{})
			if err != nil {
				t.Fatal(err)
			}
			out, err := wireOutput(&conf.Agent, &conf.Outputs[0], io.Discard)
			if err != nil {
				t.Fatal(err)
			}
			b := &record.Batch{}
			b.Add(record.Record{
				Object: &record.Object{
					Source: "s", Bucket: "b", Key: "k", Labels: map[string]string{"env": "prod"},
					Stamp: time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC),
				},
				Raw: []byte(`{"a":0.0}`), EventID: []byte("id-1"),
			})
			if err := out.Output.Send(t.Context(), b); err != nil {
				t.Fatal(err)
			}
			if err := out.Output.Close(); err != nil {
				t.Error(err)
			}
			if got.URL.Path != c.path || got.Header.Get("Authorization") != c.auth {
				t.Errorf("%s, Authorization %q; want %s, %q", got.URL, got.Header.Get("Authorization"), c.path, c.auth)
			}
			for _, part := range c.body {
				if !strings.Contains(content, part) {
					t.Errorf("%q is not in\n%s", part, content)
				}
			}
			if c.never != "" && strings.Contains(content, c.never) {
				t.Errorf("%q is in\n%s", c.never, content)
			}
		})
	}
}
