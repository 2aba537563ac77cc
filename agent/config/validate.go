package config

import (
	"fmt"
	"maps"
	"net"
	"net/netip"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// config judges the values of a whole configuration. It is the one place where
// values are judged; the rest of its files are its chapters.
func (f *findings) config(c *Config) {
	f.agent(&c.Agent)
	for i := range c.Sources {
		f.source(item("source", i), &c.Sources[i])
	}
	f.overlaps(c.Sources)
	for i := range c.Outputs {
		f.output(item("output", i), &c.Outputs[i], c)
	}
	names(f, "source", c.Sources, func(s *Source) string { return s.Name })
	names(f, "output", c.Outputs, func(o *Output) string { return o.Name })
	f.work(c)
}

// work sees to it that there is something to do.
func (f *findings) work(c *Config) {
	enabledSource := func(s Source) bool { return s.Enabled }
	enabledOutput := func(o Output) bool { return o.Enabled }
	switch {
	case len(c.Sources) == 0:
		f.bad("source", "there is no source", "add a [[source]] with name and bucket")
	case !slices.ContainsFunc(c.Sources, enabledSource):
		f.bad("source", "every source is disabled", "set enabled = true in one")
	}
	switch {
	case len(c.Outputs) == 0:
		f.bad("output", "there is no output", "add an [[output]] with name and type")
	case !slices.ContainsFunc(c.Outputs, enabledOutput):
		f.bad("output", "every output is disabled", "set enabled = true in one")
	}
	if len(f.problems) > 0 {
		return
	}
	for i, s := range c.Sources {
		wanted := func(o Output) bool {
			return o.Enabled && (len(o.Sources) == 0 || slices.Contains(o.Sources, s.Name))
		}
		if s.Enabled && !slices.ContainsFunc(c.Outputs, wanted) {
			f.warn(item("source", i), "no output takes this source, so that nothing of it is read",
				"name it in the sources of an output, or set enabled = false")
		}
	}
	for i, o := range c.Outputs {
		offered := func(s Source) bool {
			return s.Enabled && (len(o.Sources) == 0 || slices.Contains(o.Sources, s.Name))
		}
		if o.Enabled && !slices.ContainsFunc(c.Sources, offered) {
			f.warn(child(item("output", i), "sources"), "every source of this output is disabled, so that it gets nothing",
				"name another source, or set enabled = false")
		}
	}
}

var namePattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$`)

// names judges the names of all sources or of all outputs.
func names[T any](f *findings, table string, all []T, name func(*T) string) {
	first := map[string]int{}
	for i := range all {
		path := child(item(table, i), "name")
		s := name(&all[i])
		switch {
		case s == "":
			f.bad(path, "is missing", "give the "+table+" a name; its state and the log go by it")
		case !namePattern.MatchString(s):
			f.bad(path, quoted(s)+" is no name",
				"write at most 64 letters, digits, _ . and -, a letter or digit first")
		default:
			if j, ok := first[s]; ok {
				f.bad(path, quoted(s)+" is the name of another "+table+f.where(child(item(table, j), "name")),
					"give each a name of its own")
				continue
			}
			first[s] = i
		}
	}
}

// where says in which line a key stands, for a message about another one.
func (f *findings) where(path string) string {
	if f.doc == nil {
		return ""
	}
	return " (line " + strconv.Itoa(f.doc.line(path)) + ")"
}

func (f *findings) agent(a *Agent) {
	const at = "agent"
	if a.StateDir == "" {
		f.bad(child(at, "state_dir"), "is empty", "name a directory that only the agent writes to")
	}
	f.path(child(at, "state_dir"), a.StateDir)
	f.path(child(at, "log_file"), a.LogFile)
	f.oneOf(child(at, "log_level"), a.LogLevel, "debug", "info", "warn", "error")
	f.oneOf(child(at, "log_format"), a.LogFormat, "json", "console")
	if a.Listen != "" {
		f.hostPort(child(at, "listen"), a.Listen, true, "127.0.0.1:9810")
	}
	f.between(child(at, "downloads"), a.Downloads, 0, 1024)
	sizeBetween(f, child(at, "memory"), a.Memory, 16*MiB, TiB)
	sizeBetween(f, child(at, "max_record"), a.MaxRecord, KiB, 64*MiB)
	if a.Memory >= 16*MiB && a.MaxRecord > a.Memory/4 && a.MaxRecord <= 64*MiB {
		f.bad(child(at, "max_record"), fmt.Sprintf("%v is more than a quarter of memory (%v)", a.MaxRecord, a.Memory),
			fmt.Sprintf("set memory to %v or more", 4*a.MaxRecord))
	}
	f.durationBetween(child(at, "drain_timeout"), a.DrainTimeout, 100*time.Millisecond, time.Hour)
	if !a.Proxy.Empty() {
		f.proxy(child(at, "proxy"), a.Proxy)
	}
}

func (f *findings) proxy(path string, p URL) {
	const remedy = `write "http://proxy.example.com:3128"; user and password may stand before the host`
	u, flaw := parseURL(p.Reveal())
	switch {
	case flaw != nil:
		f.bad(path, flaw.message, remedy)
	case !slices.Contains([]string{"http", "https", "socks5"}, u.Scheme):
		f.bad(path, "a proxy is reached by http, https or socks5", remedy)
	case u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.Fragment != "":
		f.bad(path, "something follows the host", remedy)
	}
}

// Below, what is judged alike wherever it stands.

// path warns of a path that means another file wherever the agent is started.
func (f *findings) path(path, file string) {
	switch {
	case strings.ContainsRune(file, 0):
		f.bad(path, "there is a NUL character in the path", "remove it")
	case file != "" && !filepath.IsAbs(file):
		f.warn(path, quoted(file)+" hangs on the directory that the agent is started in",
			"write the path from the root on")
	}
}

func (f *findings) oneOf(path, value string, allowed ...string) bool {
	if slices.Contains(allowed, value) {
		return true
	}
	remedy := "write " + either(allowed)
	if s := nearest(value, allowed); s != "" {
		remedy = "did you mean " + quoted(s) + "?"
	}
	f.bad(path, quoted(value)+" is not known here", remedy)
	return false
}

func (f *findings) between(path string, n, least, most int) {
	if n < least || n > most {
		f.bad(path, strconv.Itoa(n)+" is out of bounds", fmt.Sprintf("write %d to %d", least, most))
	}
}

func sizeBetween(f *findings, path string, s, least, most Size) bool {
	if s >= least && s <= most {
		return true
	}
	f.bad(path, s.String()+" is out of bounds", fmt.Sprintf("write %v to %v", least, most))
	return false
}

func (f *findings) durationBetween(path string, d Duration, least, most time.Duration) bool {
	if time.Duration(d) >= least && time.Duration(d) <= most {
		return true
	}
	f.bad(path, d.String()+" is out of bounds", fmt.Sprintf("write %v to %v", Duration(least), Duration(most)))
	return false
}

// each judges the items of a list, and finds those that stand there twice.
func (f *findings) each(path string, list []string, pattern *regexp.Regexp, what, remedy string) {
	for i, s := range list {
		switch {
		case !pattern.MatchString(s):
			f.bad(item(path, i), quoted(s)+" is "+what, remedy)
		case slices.Contains(list[:i], s):
			f.bad(item(path, i), quoted(s)+" is there twice", "remove one")
		}
	}
}

// labelPattern lets a label's name be a member, a field and a syslog parameter
// alike (RFC 5424 §6.3.3: 1 to 32 printable characters).
var labelPattern = regexp.MustCompile(`^[A-Za-z0-9_.-]{1,32}$`)

func (f *findings) labels(path string, labels map[string]string) {
	for _, k := range slices.Sorted(maps.Keys(labels)) {
		v := labels[k]
		if !labelPattern.MatchString(k) {
			f.bad(child(path, k), "this is no name for a label", "write 1 to 32 letters, digits, _ . and -")
		}
		if hasControl(v) {
			f.bad(child(path, k), "there is a line break or another control character in it", "remove it")
		}
	}
}

// hostPort judges host:port. local allows no host, and port 0.
func (f *findings) hostPort(path, address string, local bool, example string) {
	remedy := "write host:port, like " + quoted(example)
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		f.bad(path, quoted(address)+" is not host:port", remedy)
		return
	}
	n, err := strconv.ParseUint(port, 10, 16)
	switch {
	case err != nil || n == 0 && !local:
		f.bad(path, quoted(port)+" is no port", remedy)
	case host == "" && !local:
		f.bad(path, "there is no host in "+quoted(address), remedy)
	case !plainHost(host):
		f.bad(path, quoted(host)+" is no host", remedy)
	}
}

var hostPattern = regexp.MustCompile(`^[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_.])?$`)

// plainHost reports whether host is a name, an address, or empty. It does not
// ask whether it exists.
func plainHost(host string) bool {
	if _, err := netip.ParseAddr(host); err == nil {
		return true
	}
	return host == "" || hostPattern.MatchString(host)
}

// parseURL takes a URL with a host. A flaw never quotes it.
func parseURL(text string) (*url.URL, *flaw) {
	u, err := url.Parse(text)
	if err != nil || hasControl(text) {
		return nil, &flaw{message: "this is no URL"}
	}
	if u.Scheme == "" || u.Opaque != "" || !strings.Contains(text, "://") {
		return nil, &flaw{message: "this is no URL: it does not begin with a scheme, like https://"}
	}
	port := u.Port()
	if n, err := strconv.ParseUint(port, 10, 16); port != "" && (err != nil || n == 0) || strings.HasSuffix(u.Host, ":") {
		return nil, &flaw{message: "this is no URL: its port is none"}
	}
	if u.Hostname() == "" || !plainHost(u.Hostname()) {
		return nil, &flaw{message: "this is no URL: its host is none"}
	}
	return u, nil
}

// web judges the URL of a service. Over http anyone on the way reads along, so
// that it is for this machine only, unless the operator says otherwise.
func (f *findings) web(path, text string, allowHTTP bool, allowKey, example string) *url.URL {
	u, flaw := parseURL(text)
	switch {
	case flaw != nil:
		f.bad(path, flaw.message, "write one like "+quoted(example))
		return nil
	case u.Scheme != "https" && u.Scheme != "http":
		f.bad(path, "only https is spoken, and http", "write one like "+quoted(example))
		return nil
	case u.Scheme == "http" && !allowHTTP && !loopback(u.Hostname()):
		f.bad(path, "http would show records and credentials to anyone on the way",
			"write https://, or allow it with "+allowKey)
	case u.Fragment != "":
		f.bad(path, "what follows # is never sent", "remove it")
	}
	return u
}

func loopback(host string) bool {
	if strings.EqualFold(strings.TrimSuffix(host, "."), "localhost") {
		return true
	}
	a, err := netip.ParseAddr(host)
	return err == nil && a.Unmap().IsLoopback()
}
