package config

import (
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// Every key, read from a file and found in its field.
func TestParseEverything(t *testing.T) {
	text := `
[agent]
state_dir = "/s"
log_level = "debug"
log_format = "console"
log_file = "/l"
listen = ""
downloads = 3
memory = "32MiB"
max_record = "512KiB"
drain_timeout = "5s"
proxy = "env:SECRET_PROXY"

[[source]]
name = "a"
enabled = false
labels = { x = "y" }
bucket = "acme-logs"
prefix = "p/q"
region = "eu-central-1"
bucket_owner = "111122223333"
log_types = ["CloudTrail"]
organizations = ["none"]
accounts = ["111122223333"]
exclude_accounts = ["222233334444"]
regions = ["eu-central-1"]
exclude_regions = ["us-east-1"]
start = "2026-11-01"
refresh = "2m"
idle_refresh = "3m"
look_back = "2h"
late_horizon = "31d"
discovery = "1h"
max_lists_per_minute = 9
endpoint = "http://s3.example.com:9000"
allow_http = true
path_style = true
requester_pays = true
tls.ca_file = "/ca"
credentials = { type = "static", access_key_id = "env:SECRET", secret_access_key = "file:/run/secret", session_token = "t" }
account = [ { id = "333344445555", name = "n", enabled = false, labels = { k = "v" } } ]

[[source]]
name = "b"
bucket = "acme-logs"
fips = true
dual_stack = true
[source.credentials]
type = "profile"
profile = "p"
shared_files = ["/f", "/g"]

[[output]]
name = "h"
enabled = false
type = "https"
sources = ["a", "b"]
url = "http://127.0.0.1:1/x"
format = "json-array"
username = "u"
password = "env:SECRET"
compression = "none"
batch_records = 2
batch_bytes = "2MiB"
batch_wait = "2s"
connections = 2
timeout = "2s"
allow_http = true
[output.headers]
X-A = "b"

[[output]]
name = "t"
type = "https"
url = "https://siem.example.com"
token = "file:/run/secret"
[output.tls]
ca_file = "/ca"
cert_file = "/cert"
key_file = "/key"
server_name = "name"
min_version = "1.3"

[[output]]
name = "y"
type = "syslog"
addresses = ["[::1]:514"]
transport = "tcp"
framing = "lf"
facility = "auth"
severity = "debug"
app_name = "app"
hostname = "host"
max_message = "8KiB"
oversize = "park"
confirm_delay = "50ms"

[[output]]
name = "f"
type = "file"
path = "/p"
rotate_size = "1MiB"
rotate_age = "1h"
keep = 2
`
	env := testEnv()
	lookup := env.LookupEnv
	env.LookupEnv = func(name string) (string, bool) {
		if name == "SECRET_PROXY" {
			return "http://u:p@proxy.example.com:3128", true
		}
		return lookup(name)
	}
	c, warnings, err := Parse("f", []byte(text), env)
	if err != nil {
		t.Fatal(err)
	}
	if len(warnings) > 0 {
		t.Error(warnings)
	}
	d := func(x time.Duration) Duration { return Duration(x) }
	start, _ := ParseStart("2026-11-01")
	b := DefaultSource()
	b.Name = "b"
	b.Bucket.Name, b.Bucket.FIPS, b.Bucket.DualStack = "acme-logs", true, true
	b.Credentials = Credentials{Type: "profile", Profile: "p", SharedFiles: []string{"/f", "/g"}}
	h, tt, y, f := DefaultOutput(TypeHTTPS), DefaultOutput(TypeHTTPS), DefaultOutput(TypeSyslog), DefaultOutput(TypeFile)
	h.Name, h.Enabled, h.Sources = "h", false, []string{"a", "b"}
	h.HTTPS = HTTPS{
		URL: NewURL("http://127.0.0.1:1/x"), Format: "json-array", Username: "u", Password: NewSecret("from-env"),
		Headers: map[string]Secret{"X-A": NewSecret("b")}, Compression: "none", BatchRecords: 2, BatchBytes: 2 * MiB,
		BatchWait: d(2 * time.Second), Connections: 2, Timeout: d(2 * time.Second), AllowHTTP: true,
		TLS: TLS{MinVersion: "1.2"}, Indexing: Indexing{Sourcetype: "aws:cloudtrail"},
	}
	tt.Name, tt.HTTPS.URL, tt.HTTPS.Token = "t", NewURL("https://siem.example.com"), NewSecret("from-file")
	tt.HTTPS.TLS = TLS{"/ca", "/cert", "/key", "name", "1.3"}
	y.Name = "y"
	y.Syslog = Syslog{
		[]string{"[::1]:514"}, "tcp", "rfc5424", "lf", "auth", "debug", "app", "host", 8 * KiB, "park",
		d(50 * time.Millisecond), TLS{MinVersion: "1.2"},
	}
	f.Name, f.File = "f", File{"/p", MiB, d(time.Hour), 2}
	want := &Config{
		Agent: Agent{"/s", "debug", "console", "/l", "", Secret{}, 3, 32 * MiB, 512 * KiB, d(5 * time.Second),
			NewURL("http://u:p@proxy.example.com:3128")},
		Sources: []Source{{
			Name: "a", Labels: map[string]string{"x": "y"},
			Bucket: Bucket{Name: "acme-logs", Prefix: "p/q", Region: "eu-central-1", Owner: "111122223333",
				Endpoint: "http://s3.example.com:9000", AllowHTTP: true, PathStyle: true, RequesterPays: true, CAFile: "/ca"},
			Credentials: Credentials{Type: "static", AccessKeyID: "from-env", SecretAccessKey: NewSecret("from-file"), SessionToken: NewSecret("t"),
				Files: KeyFiles{SecretAccessKey: "/run/secret"}},
			Scope: Scope{[]string{"CloudTrail"}, []string{"none"}, []string{"111122223333"}, []string{"222233334444"},
				[]string{"eu-central-1"}, []string{"us-east-1"}},
			Start:    start,
			Listing:  Listing{d(2 * time.Minute), d(3 * time.Minute), d(2 * time.Hour), d(31 * day), d(time.Hour), 9},
			Accounts: []Account{{"333344445555", "n", false, map[string]string{"k": "v"}}},
		}, b},
		Outputs: []Output{h, tt, y, f},
	}
	if !reflect.DeepEqual(c, want) {
		t.Errorf("got\n%+v\nwant\n%+v", c, want)
	}
	if _, err := c.Validate(); err != nil {
		t.Errorf("taken when read, refused when made: %v", err)
	}
}

const good = `
[[source]]
name = "s"
bucket = "acme-logs"
[[output]]
name = "o"
type = "stdout"
`

func TestWarnings(t *testing.T) {
	for text, want := range map[string]string{
		good:                                    "",
		good + "[agent]\nlisten = \"\"":         "",
		good + "[agent]\nstate_dir = \"state\"": `f:9: agent.state_dir: "state" hangs on the directory`,
		good + "[[output]]\nname = \"y\"\ntype = \"syslog\"\naddresses = [\"h:1\"]\noversize = \"reduce\"":                           "",
		good + "[[output]]\nname = \"y\"\ntype = \"syslog\"\naddresses = [\"h:1\"]\ntransport = \"udp\"":                             "",
		good + "[[source]]\nname = \"t\"\nbucket = \"acme-logs\"\nprefix = \"a\"\nlate_horizon = \"7d\"":                             "f:12: source.late_horizon: CloudTrail delivers up to 30 days late",
		good + "[[source]]\nname = \"t\"\nbucket = \"acme-logs\"\nprefix = \"a\"\nlook_back = \"5m\"":                                "f:12: source.look_back: objects appear",
		good + "sources = [\"s\"]\n[[source]]\nname = \"t\"\nbucket = \"other-logs\"":                                                "f:9: source: no output takes this source",
		good + "[[source]]\nname = \"t\"\nbucket = \"acme-logs\"\nenabled = false":                                                   "",
		good + "[[source]]\nname = \"t\"\nbucket = \"b-t\"\nenabled=false\n[[output]]\nname=\"u\"\ntype=\"stdout\"\nsources=[\"t\"]": "f:15: output.sources: every source of this output is disabled",
	} {
		_, warnings, err := Parse("f", []byte(text), Env{})
		if err != nil {
			t.Errorf("%s\n%v", text, err)
		}
		got := ""
		for _, w := range warnings {
			got += w.String()
		}
		if (want == "") != (got == "") || !strings.HasPrefix(got, want) || len(warnings) > 1 {
			t.Errorf("%s\nsays %q, want %q", text, got, want)
		}
	}
}

// A judge is asked about each filter that is well formed, and what it says is
// reported with the file's lines, among all else.
func TestFilterJudge(t *testing.T) {
	text := strings.Replace(good, "[[output]]", "refrsh = \"1m\"\n[[source.filter]]\naction = \"drop\"\nwhen = \"a\"\n"+
		"[[source.filter]]\naction = \"drip\"\nwhen = \"b\"\n[[source.filter]]\naction = \"keep\"\nmatch = \"c\"\n[[output]]", 1)
	var asked []Filter
	_, warnings, err := Parse("f", []byte(text), Env{}, func(r Filter) []FilterFlaw {
		asked = append(asked, r)
		return []FilterFlaw{{Key: "when", Message: "is wrong", Remedy: "mend it", Mild: r.Match != ""}}
	})
	if want := []Filter{{Action: "drop", When: "a"}, {Action: "keep", Match: "c"}}; !slices.Equal(asked, want) {
		t.Errorf("asked about %+v", asked)
	}
	if err == nil || !strings.Contains(err.Error(), "f:8: source.filter.when: is wrong; mend it\n") ||
		!strings.Contains(err.Error(), "there is no such key") || !strings.Contains(err.Error(), "drip") {
		t.Errorf("%v", err)
	}
	if len(warnings) != 1 || warnings[0].Key != "source.filter.when" || warnings[0].Line == 0 {
		t.Errorf("%v", warnings)
	}
}

// Two sources are refused exactly if some object of the one is an object of
// the other: keys begin with the prefix, a slash if there is one, and AWSLogs/.
func TestOverlaps(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		prefix := rapid.SampledFrom([]string{"", "a", "a/b", "b", "a/bc", "AWS", "a/AWSLog"})
		bucket := rapid.SampledFrom([]string{"acme-logs", "other-logs"})
		c := Default()
		for _, name := range []string{"x", "y"} {
			s := DefaultSource()
			s.Name, s.Bucket.Name, s.Bucket.Prefix = name, bucket.Draw(t, "bucket"), prefix.Draw(t, "prefix")
			c.Sources = append(c.Sources, s)
		}
		o := DefaultOutput(TypeStdout)
		o.Name = "o"
		c.Outputs = []Output{o}
		tree := func(s Source) string {
			key := s.Bucket.Name + "/"
			if s.Bucket.Prefix != "" {
				key += s.Bucket.Prefix + "/"
			}
			return key + "AWSLogs/"
		}
		x, y := tree(c.Sources[0]), tree(c.Sources[1])
		overlap := strings.HasPrefix(x, y) || strings.HasPrefix(y, x)
		if _, err := c.Validate(); (err != nil) != overlap {
			t.Fatalf("%s and %s: %v", x, y, err)
		}
	})
}

func TestNearest(t *testing.T) {
	names := []string{"refresh", "idle_refresh", "region", "regions", "CloudTrail"}
	for s, want := range map[string]string{
		"refesh": "refresh", "idle-refresh": "idle_refresh", "regoin": "region", "regions": "regions", "REGION": "region",
		"cloudtrail": "CloudTrail", "bucket": "", "": "", "x": "", strings.Repeat("r", 1000): "",
	} {
		if got := nearest(s, names); got != want {
			t.Errorf("%q: %q, want %q", s, got, want)
		}
	}
}

// http is for this machine only.
func TestWebOverHTTP(t *testing.T) {
	for url, allowed := range map[string]bool{
		"http://127.0.0.1:8080/x": true, "http://localhost": true, "http://LOCALHOST.:1": true, "http://[::1]:9": true,
		"http://127.9.9.9": true, "http://[::ffff:127.0.0.1]": true,
		"http://localhost.example.com": false, "http://127.0.0.1.example.com": false, "http://10.0.0.1": false,
		"http://[::2]": false, "http://0.0.0.0": false, "https://10.0.0.1": true, "HTTPS://siem.example.com": true,
		"http://127.0.0.1@siem.example.com/": false,
	} {
		f := newFindings(nil)
		f.web("k", url, false, "", "")
		if (len(f.problems) == 0) != allowed {
			t.Errorf("%s: %v", url, f.problems)
		}
		f = newFindings(nil)
		if f.web("k", url, true, "", ""); len(f.problems) > 0 {
			t.Errorf("%s, allowed: %v", url, f.problems)
		}
	}
}
