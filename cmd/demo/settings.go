package main

import (
	"os"
	"path/filepath"
	"strings"
	"text/template"
	"time"

	"github.com/trailpoll/trailpoll/testdata/corpus"
)

// The secrets reach the agent through its environment, so that the
// configuration holds none.
const (
	secretVariable = "TRAILPOLL_DEMO_SECRET"
	tokenVariable  = "TRAILPOLL_DEMO_TOKEN"
	token          = "a-token-for-this-demonstration"
)

// The names of the two outputs.
const (
	httpsOutput  = "siem-https"
	syslogOutput = "siem-syslog"
)

// lookBack reaches far enough to find the demonstration's late object with
// every poll. In earnest an hour is enough, and the sweeps find the rest.
const lookBack = 12 * time.Hour

// layout is where the demonstration's trail puts its objects: an
// organisation's trail with a prefix.
func layout() corpus.Layout { return corpus.Layouts()[2] }

// settings is what the configuration depends on.
type settings struct {
	StateDir, Bucket, Prefix, Endpoint, Key string
	URL, CAFile, Syslog                     string
}

var configuration = template.Must(template.New("trailpoll.toml").Parse(`# Written by the demonstration. Secrets come from the environment.
[agent]
state_dir = '{{.StateDir}}'

[[source]]
name       = "demo-trail"
bucket     = "{{.Bucket}}"
prefix     = "{{.Prefix}}"
region     = "us-east-1"
start      = "-7d"
refresh      = "1s"           # in earnest: 1m
idle_refresh = "2s"           # in earnest: 10m
look_back    = "12h"          # in earnest: 1h
discovery    = "2s"           # in earnest: 15m
endpoint   = "{{.Endpoint}}"
path_style = true

[source.credentials]
type = "static"
access_key_id     = "{{.Key}}"
secret_access_key = "env:` + secretVariable + `"

[[output]]
name  = "` + httpsOutput + `"
type  = "https"
url   = "{{.URL}}/ingest"
token = "env:` + tokenVariable + `"
batch_wait = "200ms"
[output.tls]
ca_file = '{{.CAFile}}'

[[output]]
name = "` + syslogOutput + `"
type = "syslog"
addresses     = ["{{.Syslog}}"]
transport     = "tcp"
max_message   = "2MiB"
confirm_delay = "500ms"
`))

// write writes the configuration into dir and returns its path and text.
func (s *settings) write(dir string) (path, text string, err error) {
	var b strings.Builder
	if err := configuration.Execute(&b, s); err != nil {
		return "", "", err
	}
	path = filepath.Join(dir, "trailpoll.toml")
	return path, b.String(), os.WriteFile(path, []byte(b.String()), 0o600)
}
