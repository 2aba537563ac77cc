package main

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/template"
)

var configuration = template.Must(template.New("trailpoll.toml").Parse(`[agent]
state_dir = '{{.Dir}}/state'
downloads = {{.Downloads}}
memory    = "{{.Memory}}"

[[source]]
name       = "bench"
bucket     = "{{.Bucket}}"
region     = "{{.Region}}"
start      = "{{.Start}}"
endpoint   = "{{.Endpoint}}"
path_style = true

[source.credentials]
type = "static"
access_key_id     = "{{.AccessKey}}"
secret_access_key = "{{.SecretKey}}"
{{- if .TLS}}

[source.tls]
ca_file = '{{.Dir}}/ca.pem'
{{- end}}
{{range .Rules}}
[[source.filter]]
action = "drop"
when   = '{{.}}'
{{end}}
{{- range $i, $o := .Outputs}}
[[output]]
name = "out-{{$i}}"
{{- if $o.Record}}
record = "{{$o.Record}}"
{{- end}}
{{- if eq $o.Kind "syslog"}}
type = "syslog"
addresses   = ["{{$.Syslog}}"]
transport   = "tcp"
max_message = "2MiB"
{{- else}}
type = "https"
url  = "{{$.URL}}{{$o.Path}}"
{{- if $o.Format}}
format = "{{$o.Format}}"
{{- end}}
{{- if eq $o.Format "splunk-hec"}}
token = "00000000-0000-0000-0000-000000000000"
{{- end}}
{{- if eq $o.Format "elastic-bulk"}}
index = "cloudtrail-%Y.%m.%d"
{{- end}}
compression   = "{{if $o.Gzip}}gzip{{else}}none{{end}}"
batch_records = {{$.BatchRecords}}
batch_bytes   = "{{$.BatchBytes}}B"
connections   = {{$.Connections}}
{{- if $.TLS}}

[output.tls]
ca_file = '{{$.Dir}}/ca.pem'
{{- end}}
{{- end}}
{{end}}`))

// settings is what a configuration of the agent depends on.
type settings struct {
	Dir, Memory, Start       string
	Bucket, Region, Endpoint string
	AccessKey, SecretKey     string
	URL, Syslog              string
	Downloads, Connections   int
	BatchRecords, BatchBytes int
	TLS                      bool
	Rules                    []string
	Outputs                  []outputSettings
}

type outputSettings struct {
	Kind, Path     string
	Gzip           bool
	Format, Record string
}

// tenRules over five members, none of which any record matches: each record is
// asked all ten.
var tenRules = []string{
	`userIdentity.type == "Nobody"`,
	`eventSource == "nowhere.amazonaws.com" && readOnly == true`,
	`eventSource == "nothing.amazonaws.com" && eventName startsWith "Get"`,
	`eventName in ["NeverOne", "NeverTwo", "NeverThree"]`,
	`errorCode == "NeverSeen"`,
	`readOnly == true && userIdentity.type == "Never"`,
	`eventSource == "never.amazonaws.com" && eventName startsWith "Batch"`,
	`errorCode startsWith "Never." && not readOnly`,
	`eventName matches "^(Never|Nowhere)" && readOnly == true`,
	`userIdentity.type == "Nothing" && eventName == "Decrypt"`,
}

// configure writes the agent's configuration for a work into dir, with a state
// that is empty, and returns its path.
func configure(dir, memory string, st *stage, w *work) (path string, err error) {
	s := settings{
		Dir: filepath.ToSlash(dir), Memory: memory, Start: cmp.Or(w.start, "-30d"), Bucket: bucketName, Region: region, Endpoint: st.s3.URL(),
		AccessKey: accessKey, SecretKey: secretKey, URL: st.to.url, Syslog: st.to.syslog.Addr().String(),
		Downloads: cmp.Or(w.downloads, downloads), Connections: connections, BatchRecords: batchRecords, BatchBytes: batchBytes, TLS: w.tls,
	}
	if w.tls {
		s.Endpoint, s.URL = st.s3TLS, st.toTLS
		if err := os.WriteFile(filepath.Join(dir, "ca.pem"), st.ca, 0o600); err != nil {
			return "", err
		}
	}
	for _, o := range w.outputs {
		at := slices.IndexFunc(dialects[:], func(d dialect) bool { return d.format == o.format })
		s.Outputs = append(s.Outputs, outputSettings{o.kind, dialects[at].path, o.gzip, o.format, o.record})
	}
	if w.rules {
		s.Rules = tenRules
	}
	var b strings.Builder
	if err := configuration.Execute(&b, s); err != nil {
		return "", fmt.Errorf("writing the configuration: %w", err)
	}
	path = filepath.Join(dir, "trailpoll.toml")
	return path, os.WriteFile(path, []byte(b.String()), 0o600)
}
