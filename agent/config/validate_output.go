package config

import (
	"fmt"
	"maps"
	"net/textproto"
	"regexp"
	"slices"
	"strings"
	"time"
)

var outputTypes = []string{TypeHTTPS, TypeSyslog, TypeFile, TypeStdout}

func (f *findings) output(at string, o *Output, c *Config) {
	if o.Type == "" {
		f.bad(child(at, "type"), "is missing", "write "+either(outputTypes))
	} else {
		f.oneOf(child(at, "type"), o.Type, outputTypes...)
	}
	f.oneOf(child(at, "record"), o.Record, "raw", "envelope", "cef", "ocsf")
	f.outputSources(child(at, "sources"), o.Sources, c.Sources)
	switch o.Type {
	case TypeHTTPS:
		f.https(at, &o.HTTPS, c.Agent.Memory)
		if o.HTTPS.Format == "elastic-bulk" && o.Record == "cef" {
			f.bad(child(at, "record"), "CEF is text, and format elastic-bulk takes JSON objects", `write record = "ocsf", or another format`)
		}
	case TypeSyslog:
		f.syslog(at, &o.Syslog)
	case TypeFile:
		f.file(at, &o.File)
	}
}

func (f *findings) outputSources(path string, wanted []string, sources []Source) {
	var known []string
	for _, s := range sources {
		known = append(known, s.Name)
	}
	for i, s := range wanted {
		switch {
		case slices.Contains(wanted[:i], s):
			f.bad(item(path, i), quoted(s)+" is there twice", "remove one")
		case !slices.Contains(known, s):
			remedy := "name one that there is, or leave the list empty for all"
			if n := nearest(s, known); n != "" {
				remedy = "did you mean " + quoted(n) + "?"
			}
			f.bad(item(path, i), "there is no source "+quoted(s), remedy)
		}
	}
}

func (f *findings) https(at string, h *HTTPS, memory Size) {
	f.target(at, h)
	format := f.oneOf(child(at, "format"), h.Format, "ndjson", "json-array", "splunk-hec", "elastic-bulk", "otlp")
	if format {
		f.indexing(at, h.Format, &h.Indexing)
		f.addressed(at, h)
	}
	f.authorization(at, h)
	f.headers(child(at, "headers"), h.Headers)
	f.oneOf(child(at, "compression"), h.Compression, "gzip", "none")
	f.between(child(at, "batch_records"), h.BatchRecords, 1, 100_000)
	if sizeBetween(f, child(at, "batch_bytes"), h.BatchBytes, KiB, 64*MiB) && h.BatchBytes > memory && memory >= 16*MiB {
		f.bad(child(at, "batch_bytes"), fmt.Sprintf("%v is more than memory (%v)", h.BatchBytes, memory), "write less, or set memory higher")
	}
	f.durationBetween(child(at, "batch_wait"), h.BatchWait, time.Millisecond, 5*time.Minute)
	f.between(child(at, "connections"), h.Connections, 1, 256)
	f.durationBetween(child(at, "timeout"), h.Timeout, 100*time.Millisecond, time.Hour)
	f.tls(child(at, "tls"), &h.TLS)
	f.oauth2(child(at, "oauth2"), &h.OAuth2, h.AllowHTTP)
}

func (f *findings) target(at string, h *HTTPS) {
	const example = "https://siem.example.com/ingest"
	path := child(at, "url")
	if h.URL.Empty() {
		f.bad(path, "is missing", "write where records go, like "+quoted(example))
		return
	}
	u := f.web(path, h.URL.Reveal(), h.AllowHTTP, "allow_http = true", example)
	if u == nil {
		return
	}
	if u.User != nil {
		f.bad(path, "credentials stand in the URL", "write them as username and password")
	}
	if u.Scheme == "http" && h.TLS != (TLS{MinVersion: h.TLS.MinVersion}) {
		f.bad(child(at, "tls"), "the url is http, which has no TLS", "write https:// in url, or remove the table")
	}
}

func (f *findings) indexing(at, format string, x *Indexing) {
	for _, k := range []struct {
		key     string
		set     bool
		formats []string
	}{
		{"ack", x.Ack, []string{"splunk-hec"}},
		{"index", x.Index != "", []string{"splunk-hec", "elastic-bulk"}},
		{"sourcetype", x.Sourcetype != "aws:cloudtrail" && x.Sourcetype != "", []string{"splunk-hec"}},
		{"fields", len(x.Fields) > 0, []string{"splunk-hec", "otlp"}},
	} {
		if k.set && !slices.Contains(k.formats, format) {
			f.bad(child(at, k.key), "means nothing in format "+format, "remove it, or write format = "+quoted(k.formats[0]))
		}
	}
}

// addressed judges what a format wants of url and index.
func (f *findings) addressed(at string, h *HTTPS) {
	u, flaw := parseURL(h.URL.Reveal())
	if h.URL.Empty() || flaw != nil {
		return // said already
	}
	ownPath := strings.Trim(u.Path, "/") != ""
	switch h.Format {
	case "splunk-hec":
		if h.Indexing.Ack && ownPath && !strings.Contains(u.Path, "/services/collector") {
			f.bad(child(at, "ack"), "acknowledgements are asked for at services/collector/ack, which goes by the path in url",
				"write a url that ends with /services/collector/event, or remove ack")
		}
		if hasControl(h.Indexing.Index) {
			f.bad(child(at, "index"), "there is a control character in it", "remove it")
		}
	case "elastic-bulk":
		switch {
		case h.Indexing.Index != "":
			f.elasticIndex(child(at, "index"), h.Indexing.Index)
		case strings.Trim(u.Path, "/") == "_bulk" || !ownPath:
			f.bad(child(at, "index"), "is missing", `write an index or a data stream, like "cloudtrail-%Y.%m"`)
		}
	}
}

// elasticIndex judges the name of an index: what Elasticsearch's "Create index
// API" rules out under path parameters, before the date is in it.
func (f *findings) elasticIndex(path, index string) {
	plain := strings.NewReplacer("%Y", "2026", "%m", "11", "%d", "01", "%H", "00", "%%", "%").Replace(index)
	for i := 0; i < len(index); i++ {
		if index[i] != '%' {
			continue
		}
		if i++; i == len(index) || !strings.ContainsRune("YmdH%", rune(index[i])) {
			f.bad(path, "there is a % that stands for nothing", "write %Y, %m, %d or %H for parts of the event's time, in UTC")
			return
		}
	}
	switch {
	case plain != strings.ToLower(plain):
		f.bad(path, "there are capital letters in it", "write small ones: an index has no others")
	case strings.ContainsAny(plain, `\/*?"<>| ,#:`) || hasControl(plain) || strings.ContainsAny(plain[:1], "-_+") || plain == "." || plain == "..":
		f.bad(path, quoted(index)+" is no name for an index", `write letters, digits, - _ and ., and begin with a letter or digit`)
	case len(plain) > 255:
		f.bad(path, "it is longer than the 255 bytes that a name may have", "shorten it")
	}
}

// authorization sees to it that one thing at most goes into the header of that
// name.
func (f *findings) authorization(at string, h *HTTPS) {
	basic := h.Username != "" || !h.Password.Empty()
	switch {
	case !h.Token.Empty() && basic:
		f.bad(child(at, "token"), "username or password is there, too, and only one can be sent", "remove one")
	case h.Username == "" && !h.Password.Empty() && !f.failed[child(at, "username")]:
		f.bad(child(at, "password"), "there is no username", "write username as well")
	case h.Username != "" && h.Password.Empty() && !f.failed[child(at, "password")]:
		f.bad(child(at, "username"), "there is no password", "write password as well")
	case strings.Contains(h.Username, ":"):
		// RFC 7617 §2.
		f.bad(child(at, "username"), "there is a colon in it, where the password would begin", "use another user")
	case hasControl(h.Username):
		f.bad(child(at, "username"), "there is a line break or another control character in it", "remove it")
	}
	oauth := h.OAuth2.TokenURL != "" || h.OAuth2.ClientID != ""
	if oauth && (basic || !h.Token.Empty()) {
		f.bad(child(at, "oauth2"), "token or username is there, too, and only one can be sent", "remove one")
	}
	for _, name := range slices.Sorted(maps.Keys(h.Headers)) {
		if strings.EqualFold(name, "Authorization") && (basic || oauth || !h.Token.Empty()) {
			f.bad(child(child(at, "headers"), name), "token, username or oauth2 is there, too, and only one can be sent", "remove one")
		}
	}
}

// tokenPattern is a token of RFC 9110 §5.6.2.
var tokenPattern = regexp.MustCompile("^[A-Za-z0-9!#$%&'*+.^_`|~-]+$")

// ownHeaders are made from the request itself.
var ownHeaders = []string{
	"Connection", "Content-Encoding", "Content-Length", "Expect", "Host", "Keep-Alive", "Proxy-Connection",
	"Te", "Trailer", "Transfer-Encoding", "Upgrade", "X-Splunk-Request-Channel",
}

func (f *findings) headers(path string, headers map[string]Secret) {
	seen := map[string]bool{}
	for _, name := range slices.Sorted(maps.Keys(headers)) {
		at := child(path, name)
		canonical := textproto.CanonicalMIMEHeaderKey(name)
		switch {
		case !tokenPattern.MatchString(name):
			f.bad(at, "this is no name for a header", "write letters, digits and hyphens")
		case slices.Contains(ownHeaders, canonical):
			f.bad(at, "the agent sets this header by itself", "remove it")
		case seen[canonical]:
			f.bad(at, "the header is there twice, in upper and lower case", "remove one")
		case hasControl(headers[name].Reveal()):
			f.bad(at, "there is a line break or another control character in it", "remove it")
		}
		seen[canonical] = true
	}
}

func (f *findings) tls(at string, t *TLS) {
	f.oneOf(child(at, "min_version"), t.MinVersion, "1.2", "1.3")
	switch {
	case t.CertFile != "" && t.KeyFile == "":
		f.bad(child(at, "cert_file"), "there is no key for the certificate", "write key_file as well")
	case t.CertFile == "" && t.KeyFile != "":
		f.bad(child(at, "key_file"), "there is no certificate for the key", "write cert_file as well")
	}
	if !plainHost(t.ServerName) {
		f.bad(child(at, "server_name"), quoted(t.ServerName)+" is no host", "write the name that the receiver's certificate has")
	}
	f.path(child(at, "ca_file"), t.CAFile)
	f.path(child(at, "cert_file"), t.CertFile)
	f.path(child(at, "key_file"), t.KeyFile)
}

func (f *findings) oauth2(at string, o *OAuth2, allowHTTP bool) {
	if o.TokenURL == "" && o.ClientID == "" && o.ClientSecret.Empty() && len(o.Scopes) == 0 && o.Audience == "" {
		return
	}
	const example = "https://login.example.com/oauth2/token"
	if o.TokenURL == "" {
		f.bad(child(at, "token_url"), "is missing", "write one like "+quoted(example))
	} else if u := f.web(child(at, "token_url"), o.TokenURL, allowHTTP, "allow_http = true", example); u != nil && u.User != nil {
		f.bad(child(at, "token_url"), "credentials stand in the URL", "write them as client_id and client_secret")
	}
	if o.ClientID == "" {
		f.bad(child(at, "client_id"), "is missing", "write the client that the token is for")
	}
	if o.ClientSecret.Empty() {
		f.bad(child(at, "client_secret"), "is missing", "write env:NAME or file:/path")
	}
}

func (f *findings) syslog(at string, s *Syslog) {
	f.addresses(child(at, "addresses"), s.Addresses)
	transport := f.oneOf(child(at, "transport"), s.Transport, "udp", "tcp", "tls", "relp", "relp-tls")
	stream := s.Transport == "tcp" || s.Transport == "tls"
	if transport && !stream {
		for _, key := range []string{"framing", "confirm_delay"} {
			if f.isSet(child(at, key)) {
				f.bad(child(at, key), "means nothing with transport "+s.Transport, `remove it, or write transport = "tls"`)
			}
		}
	}
	secure := s.Transport == "tls" || s.Transport == "relp-tls"
	if transport && !secure && s.TLS != (TLS{MinVersion: s.TLS.MinVersion}) {
		secured := "tls"
		if s.Transport == "relp" {
			secured = "relp-tls"
		}
		f.bad(child(at, "tls"), "transport "+s.Transport+" has no TLS", "write transport = "+quoted(secured)+", or remove the table")
	}
	f.oneOf(child(at, "message_format"), s.MessageFormat, "rfc5424", "rfc3164")
	f.oneOf(child(at, "framing"), s.Framing, "octet-counting", "lf")
	f.oneOf(child(at, "facility"), s.Facility, facilities[:]...)
	f.oneOf(child(at, "severity"), s.Severity, severities[:]...)
	if !printable(s.AppName, 1, 48) {
		f.bad(child(at, "app_name"), quoted(s.AppName)+" is no app name", "write 1 to 48 visible ASCII characters, without spaces")
	} else if s.MessageFormat == "rfc3164" && !bsdTag.MatchString(s.AppName) {
		f.bad(child(at, "app_name"), quoted(s.AppName)+" is no tag of RFC 3164", "write 1 to 32 letters, digits and - _ . /")
	}
	if !printable(s.Hostname, 0, 255) {
		f.bad(child(at, "hostname"), quoted(s.Hostname)+" is no host name", "write at most 255 visible ASCII characters, without spaces")
	}
	f.maxMessage(child(at, "max_message"), s)
	f.oneOf(child(at, "oversize"), s.Oversize, "reduce", "park")
	f.durationBetween(child(at, "confirm_delay"), s.ConfirmDelay, time.Millisecond, 10*time.Minute)
	f.tls(child(at, "tls"), &s.TLS)
}

// bsdTag is what receivers take as the TAG of RFC 3164 §4.1.3: what may follow
// it can't be in it.
var bsdTag = regexp.MustCompile("^[A-Za-z0-9._/-]{1,32}$")

// maxDatagram is what UDP over IPv4 can carry: 65,535 bytes less both headers.
const maxDatagram = 65_507

func (f *findings) maxMessage(path string, s *Syslog) {
	// RFC 5424 §6.1: every receiver takes 480 bytes.
	if sizeBetween(f, path, s.MaxMessage, 480, 64*MiB) &&
		s.Transport == "udp" && s.MaxMessage > maxDatagram && f.isSet(path) {
		f.bad(path, s.MaxMessage.String()+" does not fit into a datagram", `write "65507B" or less, or another transport`)
	}
}

func (f *findings) addresses(path string, addresses []string) {
	const example = "siem.example.com:6514"
	if len(addresses) == 0 {
		f.bad(path, "is missing", "write where records go, like ["+quoted(example)+"]")
	}
	for i, a := range addresses {
		f.hostPort(item(path, i), a, false, example)
		if slices.Contains(addresses[:i], a) {
			f.bad(item(path, i), quoted(a)+" is there twice", "remove one")
		}
	}
}

// printable reports whether s is PRINTUSASCII of RFC 5424 §6: visible, without
// spaces.
func printable(s string, least, most int) bool {
	return len(s) >= least && len(s) <= most &&
		!strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' })
}

func (f *findings) file(at string, o *File) {
	if o.Path == "" {
		f.bad(child(at, "path"), "is missing", "write the file that records go to")
	}
	f.path(child(at, "path"), o.Path)
	sizeBetween(f, child(at, "rotate_size"), o.RotateSize, KiB, TiB)
	f.durationBetween(child(at, "rotate_age"), o.RotateAge, time.Second, 365*day)
	f.between(child(at, "keep"), o.Keep, 1, 100_000)
}

// facilities are those of RFC 5424 §6.2.1, table 1, by their usual names.
var facilities = [...]string{
	"kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp",
	"ntp", "audit", "alert", "clock",
	"local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7",
}

// severities are those of RFC 5424 §6.2.1, table 2.
var severities = [...]string{"emerg", "alert", "crit", "err", "warning", "notice", "info", "debug"}
