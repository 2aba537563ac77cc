package https

import (
	"bytes"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/trailpoll/trailpoll/agent/fault"
	"github.com/trailpoll/trailpoll/agent/output/outputtest"
	"github.com/trailpoll/trailpoll/agent/output/tlsconf"
	"github.com/trailpoll/trailpoll/agent/record"
)

var update = flag.Bool("update", false, "write golden files")

// faults is the fault table of docs/outputs.md: what each failure comes to.
func faults(f Format) []outputtest.Case {
	cases := []outputtest.Case{
		{Fault: outputtest.Fault{Mode: outputtest.Refuse}, Kind: fault.Held, Hint: true},
		{Fault: outputtest.Fault{Mode: outputtest.ResetBefore}, Kind: fault.Temporary},
		{Fault: outputtest.Fault{Mode: outputtest.ResetAfter}, Kind: fault.Temporary},
		{Fault: outputtest.Fault{Mode: outputtest.Hang}, Kind: fault.Temporary},
	}
	kinds := map[fault.Kind][]int{
		fault.Temporary: {408, 425, 500, 502, 503, 504, 507, 599},
		fault.Throttled: {429},
		fault.TooLarge:  {413},
		fault.Refused:   {400, 422},
		fault.Held:      {300, 301, 302, 303, 307, 308, 401, 402, 403, 404, 405, 406, 407, 409, 410, 411, 415, 418, 431, 451},
	}
	for kind, statuses := range kinds {
		for _, status := range statuses {
			if f == OTLP && status == 500 {
				kind = fault.Refused
			}
			cases = append(cases, outputtest.Case{
				Fault: outputtest.Fault{Mode: outputtest.Status, Status: status},
				Kind:  kind, Hint: kind == fault.Held,
			})
			if f == OTLP && status == 500 {
				kind = fault.Temporary
			}
		}
	}
	return cases
}

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestConformance(t *testing.T) {
	for _, v := range []struct {
		name        string
		format      Format
		compression string
		tls, http2  bool
	}{
		{"ndjson gzip", NDJSON, "gzip", false, false},
		{"ndjson plain TLS", NDJSON, "none", true, false},
		{"json-array gzip HTTP2", JSONArray, "gzip", true, true},
		{"json-array plain", JSONArray, "none", false, false},
		{"splunk-hec gzip", SplunkHEC, "gzip", false, false},
		{"splunk-hec plain TLS", SplunkHEC, "none", true, false},
		{"elastic-bulk gzip", ElasticBulk, "gzip", false, false},
		{"elastic-bulk plain", ElasticBulk, "none", false, false},
		{"otlp gzip HTTP2", OTLP, "gzip", true, true},
		{"otlp plain", OTLP, "none", false, false},
	} {
		t.Run(v.name, func(t *testing.T) {
			pair := func(t *testing.T, timeout time.Duration) (outputtest.Output, outputtest.Receiver) {
				conf := Config{Format: v.format, Compression: v.compression, Timeout: timeout, Version: "test"}
				if v.format == ElasticBulk {
					conf.Indexing.Index = "cloudtrail-%Y.%m.%d"
				}
				var serve *tls.Config
				scheme := "http"
				if v.tls {
					scheme = "https"
					serve, conf.TLS = mutual(t)
					if v.http2 {
						serve.NextProtos = []string{"h2"}
					} else {
						serve.NextProtos = []string{"http/1.1"}
					}
				}
				in := newReceiver(t, serve)
				in.format = v.format
				conf.URL = scheme + "://" + in.addr + "/in"
				return open(t, conf), in
			}
			cases := faults(v.format)
			if v.compression == "none" { // hanging takes a while, and is no matter of compression
				cases = slices.DeleteFunc(cases, func(c outputtest.Case) bool { return c.Fault.Mode == outputtest.Hang })
			}
			outputtest.Run(t, outputtest.Suite{
				Connections: 4,
				Faults:      cases,
				New: func(t *testing.T) (outputtest.Output, outputtest.Receiver) {
					return pair(t, 15*time.Second)
				},
				NewForFault: func(t *testing.T, f outputtest.Fault) (outputtest.Output, outputtest.Receiver) {
					if f.Mode == outputtest.Hang {
						return pair(t, 500*time.Millisecond)
					}
					return pair(t, 15*time.Second)
				},
			})
		})
	}
}

// mutual makes a server's configuration that wants a client certificate, and
// the client's.
func mutual(t *testing.T) (*tls.Config, tlsconf.Config) {
	ca := outputtest.NewAuthority(t, "Test CA")
	end := time.Now().Add(time.Hour)
	certFile, keyFile := ca.Issue(t, end, "127.0.0.1")
	serve, err := tlsconf.Config{CAFile: ca.File, CertFile: certFile, KeyFile: keyFile}.Load()
	if err != nil {
		t.Fatal(err)
	}
	serve.Conf.ClientCAs, serve.Conf.ClientAuth = serve.Conf.RootCAs, tls.RequireAndVerifyClientCert
	certFile, keyFile = ca.Issue(t, end, "agent.example")
	return serve.Conf, tlsconf.Config{CAFile: ca.File, CertFile: certFile, KeyFile: keyFile}
}

func open(t *testing.T, conf Config) *Output {
	t.Helper()
	o, err := New(conf)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = o.Close() })
	return o
}

func batch(raws ...string) *record.Batch {
	b := &record.Batch{}
	for i, raw := range raws {
		b.Add(record.Record{Object: &record.Object{}, Index: i, Raw: []byte(raw)})
	}
	return b
}

func TestGolden(t *testing.T) {
	for _, f := range []Format{NDJSON, JSONArray, SplunkHEC, ElasticBulk, OTLP} {
		in := newReceiver(t, nil)
		in.format = f
		conf := Config{
			URL: "http://" + in.addr + "/in/here?x=1", Format: f, Compression: "none", Token: "T0K3N", Version: "1.2.3",
			Headers: map[string]string{"x-tenant": "acme", "Host": "siem.example.com"},
		}
		switch f {
		case SplunkHEC:
			conf.Indexing = Indexing{Index: "aws", Sourcetype: "aws:cloudtrail", Host: "agent-1", Fields: map[string]string{"site": "fra"}}
		case ElasticBulk:
			conf.Indexing.Index = "cloudtrail-%Y.%m.%d"
		case OTLP:
			conf.Indexing.Fields = map[string]string{"site": "fra"}
		}
		o := open(t, conf)
		if l, ok := o.form.layout.(otlp); ok {
			l.now = func() time.Time { return time.Date(2026, 11, 1, 10, 0, 0, 0, time.UTC) }
			o.form.layout = l
		}
		if err := o.Send(t.Context(), goldenBatch()); err != nil {
			t.Fatal(err)
		}
		var got bytes.Buffer
		r := in.last
		fmt.Fprintf(&got, "%s %s HTTP/1.1\r\nHost: %s\r\nContent-Length: %d\r\n", r.Method, r.RequestURI, r.Host, r.ContentLength)
		if err := r.Header.Write(&got); err != nil {
			t.Fatal(err)
		}
		got.WriteString("\r\n")
		got.Write(in.content)
		outputtest.Golden(t, "https-"+string(f)+".http", got.Bytes(), *update)
	}
}

// goldenBatch is records of two objects, with and without an id and a time.
func goldenBatch() *record.Batch {
	b := &record.Batch{}
	first := outputtest.Numbered("id", 1)[0]
	first.Raw = []byte(`{"a":0.0,"b":"\u003d"}`)
	b.Add(first)
	b.Add(record.Record{Object: first.Object, Index: 7, Raw: []byte(`{ "Tag":1,"tag":2 }`)})
	other := *first.Object
	other.Account, other.AccountName, other.Labels = "444455556666", "payments", map[string]string{"env": "prod"}
	other.Key = "a \"key\"\n"
	b.Add(record.Record{Object: &other, Raw: []byte(`{}`), EventTime: []byte("2026-11-02T00:00:00.5Z"), EventID: []byte("e\n\"")})
	return b
}

func TestAnswers(t *testing.T) {
	secretPath := "c2VjcmV0LXRva2VuLWluLXBhdGg="
	for _, c := range []struct {
		name   string
		status int
		header http.Header
		body   string
		kind   fault.Kind
		wait   time.Duration
		text   string // in the error
		hint   string // in the hint
		never  []string
	}{
		{name: "204", status: 204},
		{name: "202 with a body", status: 202, body: "ok"},
		{name: "429 in seconds", status: 429, header: http.Header{"Retry-After": {"7"}}, kind: fault.Throttled, wait: 7 * time.Second},
		{name: "429 for an age", status: 429, header: http.Header{"Retry-After": {"99999999999999999999999"}}, kind: fault.Throttled, wait: 5 * time.Minute},
		{name: "429 below zero", status: 429, header: http.Header{"Retry-After": {"-3"}}, kind: fault.Throttled},
		{name: "429 nonsense", status: 429, header: http.Header{"Retry-After": {"soon"}}, kind: fault.Throttled},
		{
			name: "503 until a date, by the receiver's clock", status: 503, kind: fault.Throttled, wait: 90 * time.Second,
			header: http.Header{"Retry-After": {"Sun, 01 Nov 2026 10:01:30 GMT"}, "Date": {"Sun, 01 Nov 2026 10:00:00 GMT"}},
		},
		{
			name: "503 until a date that is past", status: 503, kind: fault.Temporary,
			header: http.Header{"Retry-After": {"Sun, 01 Nov 2026 10:01:30 GMT"}, "Date": {"Sun, 01 Nov 2026 11:00:00 GMT"}},
		},
		{
			name: "redirect", status: 307, kind: fault.Held, header: http.Header{"Location": {"https://elsewhere.example/x?t=T0K3Nabc"}},
			hint: `"https://elsewhere.example"`, never: []string{"T0K3Nabc", "/x"},
		},
		{name: "redirect to nonsense", status: 302, kind: fault.Held, header: http.Header{"Location": {"http://[::1/x"}}, hint: "url"},
		{
			name: "the answer repeats secrets", status: 401, kind: fault.Held, text: "bad [hidden]",
			body:  "bad T0K3N-T0K3N, X-Api: header-secret, Basic, " + secretPath + " query-secret",
			never: []string{"T0K3N", "header-secret", secretPath, "query-secret"},
		},
		{
			name: "the answer breaks lines", status: 500, kind: fault.Temporary, body: "a\r\nb\x00\x1b[31m\xff\u2028c",
			text: `a\r\nb\x00\x1b[31m\xff\u2028c`, never: []string{"\n", "\x1b"},
		},
		{name: "the answer is long", status: 500, kind: fault.Temporary, body: strings.Repeat("é\n", 50_000), text: "é\\né"},
		{
			name: "the answer quotes the record", status: 400, kind: fault.Refused,
			body: `cannot parse {"user":"alice.example@corp","n":1} here`, text: "cannot parse … here", never: []string{"alice"},
		},
		{
			name: "a failing pipeline quotes the record", status: 503, kind: fault.Temporary,
			body: `cannot store {"user":"alice.example@corp","n":1} here`, text: "cannot store … here", never: []string{"alice"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			in := newReceiver(t, nil)
			in.answer = func(w http.ResponseWriter) {
				for k, v := range c.header {
					w.Header()[k] = v
				}
				w.WriteHeader(c.status)
				_, _ = io.WriteString(w, c.body)
			}
			o := open(t, Config{
				URL: "http://" + in.addr + "/" + secretPath + "?key=query-secret", Token: "T0K3N-T0K3N",
				Headers: map[string]string{"X-Api": "header-secret"},
			})
			err := o.Send(t.Context(), batch(`{"user":"alice.example@corp","n":1}`))
			if c.status/100 == 2 {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			if got := fault.KindOf(err); got != c.kind {
				t.Errorf("kind %v, want %v", got, c.kind)
			}
			if got := fault.RetryAfterOf(err); got != c.wait {
				t.Errorf("RetryAfter %v, want %v", got, c.wait)
			}
			text, hint := err.Error(), fault.HintOf(err)
			if !strings.Contains(text, c.text) || !strings.Contains(hint, c.hint) {
				t.Errorf("error %q, hint %q: want %q and %q in them", text, hint, c.text, c.hint)
			}
			if len(text) > 400 {
				t.Errorf("error of %d bytes", len(text))
			}
			for _, s := range append(c.never, "T0K3N", secretPath, "query-secret") {
				if strings.Contains(text+hint, s) {
					t.Errorf("TestInvariant10: %q in error %q or hint %q", s, text, hint)
				}
			}
		})
	}
}

// Each status has one meaning, and none but 2xx is taken for success.
func TestClassify(t *testing.T) {
	for status := -1; status < 1200; status++ {
		a := classify(status)
		if a.ok != (status >= 200 && status <= 299) {
			t.Errorf("status %d: ok = %v", status, a.ok)
		}
		if a.kind == fault.Held && a.hint == "" {
			t.Errorf("status %d holds the output without a hint", status)
		}
	}
}

func FuzzRetryAfter(f *testing.F) {
	for _, s := range []string{"", "0", "7", "-1", "1e9", "Sun, 01 Nov 2026 10:01:30 GMT", "18446744073709551616", "Sunday, 06-Nov-94 08:49:37 GMT"} {
		f.Add(s, "")
	}
	f.Fuzz(func(t *testing.T, s, date string) {
		d := retryAfter(http.Header{"Retry-After": {s}, "Date": {date}}, time.Unix(1e9, 0))
		if d < 0 || d > maxRetryAfter {
			t.Fatalf("%v", d)
		}
	})
}

func TestQuote(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := rapid.SliceOf(rapid.Byte()).Draw(t, "text")
		limit := rapid.IntRange(10, 300).Draw(t, "limit")
		out := quote(in, limit)
		if len(out) > limit {
			t.Fatalf("%d bytes, %d allowed", len(out), limit)
		}
		for _, r := range out {
			if r < ' ' || r == 0x7f || r == '\ufffd' && !bytes.ContainsRune(in, r) {
				t.Fatalf("%q holds %q", out, r)
			}
		}
	})
}

func TestCertificates(t *testing.T) {
	ca, other := outputtest.NewAuthority(t, "Right CA"), outputtest.NewAuthority(t, "Wrong CA")
	soon := time.Now().Add(time.Hour)
	past := time.Now().Add(-time.Hour)
	for _, c := range []struct {
		name   string
		issuer *outputtest.Authority
		end    time.Time
		dns    string
		client bool // the server wants a certificate, and we have none
		hints  []string
	}{
		{"expired", ca, past, "127.0.0.1", false, []string{"expired", past.UTC().Format("2006-01-02T15:04"), `CN=127.0.0.1`}},
		{"another name", ca, soon, "siem.example.com", false, []string{"not for", `"siem.example.com"`, "server_name"}},
		{"another authority", other, soon, "127.0.0.1", false, []string{"tls.ca_file", "CN=Wrong CA"}},
		{"no client certificate", ca, soon, "127.0.0.1", true, []string{"tls.cert_file"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			certFile, keyFile := c.issuer.Issue(t, c.end, c.dns)
			cert, err := tls.LoadX509KeyPair(certFile, keyFile)
			if err != nil {
				t.Fatal(err)
			}
			serve := &tls.Config{Certificates: []tls.Certificate{cert}}
			if c.client {
				serve.ClientAuth = tls.RequireAnyClientCert
			}
			in := newReceiver(t, serve)
			in.server.ErrorLog = nil
			o := open(t, Config{URL: "https://" + in.addr, TLS: tlsconf.Config{CAFile: ca.File}})
			err = o.Send(t.Context(), batch(`{}`))
			// The alert of TLS 1.3 may be lost, as Explain says.
			if k := fault.KindOf(err); k != fault.Held && (!c.client || k != fault.Temporary) {
				t.Errorf("kind %v: %v", fault.KindOf(err), err)
			}
			for _, h := range c.hints {
				if !strings.Contains(fault.HintOf(err), h) {
					t.Errorf("%q is not in the hint: %s", h, fault.HintOf(err))
				}
			}
		})
	}
	t.Run("no TLS at all", func(t *testing.T) {
		in := newReceiver(t, nil)
		o := open(t, Config{URL: "https://" + in.addr})
		if err := o.Send(t.Context(), batch(`{}`)); fault.KindOf(err) != fault.Held || !strings.Contains(fault.HintOf(err), "TLS") {
			t.Errorf("%v, hint %q", err, fault.HintOf(err))
		}
	})
	t.Run("no such host", func(t *testing.T) {
		o := open(t, Config{URL: "https://siem.invalid"})
		if err := o.Send(t.Context(), batch(`{}`)); fault.KindOf(err) != fault.Held || !strings.Contains(fault.HintOf(err), "siem.invalid") {
			t.Errorf("%v, hint %q", err, fault.HintOf(err))
		}
	})
}

// A line break in a record would make two of it.
func TestInvariant11_LineBreakIsRefused(t *testing.T) {
	in := newReceiver(t, nil)
	o := open(t, Config{URL: "http://" + in.addr})
	err := o.Send(t.Context(), batch(`{"a":1}`, "{\n}", `{"b":1}`))
	e, ok := errors.AsType[*fault.Error](err)
	if !ok || e.Kind != fault.Refused || len(e.Records) != 1 || e.Records[0].Index != 1 {
		t.Fatalf("%v", err)
	}
	if got := string(bytes.Join(in.Records(), []byte("|"))); got != `{"a":1}|{"b":1}` {
		t.Errorf("arrived: %s", got)
	}
	if err := o.Send(t.Context(), batch("\n")); fault.KindOf(err) != fault.Refused || len(in.Records()) != 2 {
		t.Errorf("alone: %v, %d records", err, len(in.Records()))
	}
}

func TestBadConfig(t *testing.T) {
	for want, c := range map[string]Config{
		"it is not one":           {URL: "http://s3cret\x01"},
		"neither https nor":       {URL: "ftp://h"},
		"names no host":           {URL: "https:///x"},
		"use username":            {URL: "https://u:s3cret@h"},
		"is none of ndjson":       {URL: "https://h", Format: "xml"},
		"neither gzip":            {URL: "https://h", Compression: "br"},
		"Content-Length can't":    {URL: "https://h", Headers: map[string]string{"content-length": "1"}},
		"Idempotency-Key can't":   {URL: "https://h", Headers: map[string]string{"Idempotency-Key": "1"}},
		"is not a name":           {URL: "https://h", Headers: map[string]string{"a b": "1"}},
		"X-A holds a line":        {URL: "https://h", Headers: map[string]string{"x-a": "s3cret\r\nHost: x"}},
		"the token holds":         {URL: "https://h", Token: "s3cret\n"},
		"exclude each other":      {URL: "https://h", Token: "s3cret", Username: "u"},
		"set twice":               {URL: "https://h", Token: "s3cret", Headers: map[string]string{"authorization": "x"}},
		"holds a colon":           {URL: "https://h", Username: "a:b"},
		"the proxy's URL":         {URL: "https://h", Proxy: "http://u:s3cret@\x01"},
		"the proxy's URL: sch":    {URL: "https://h", Proxy: "ftp://u:s3cret@h"},
		"has no acknowledgements": {URL: "https://h", Indexing: Indexing{Ack: true}},
		"has no index":            {URL: "https://h", Format: OTLP, Indexing: Indexing{Index: "i"}},
		"has no fields":           {URL: "https://h", Indexing: Indexing{Fields: map[string]string{"a": "b"}}},
		"needs an index":          {URL: "https://h", Format: ElasticBulk},
		"stands Y, m":             {URL: "https://h", Format: ElasticBulk, Indexing: Indexing{Index: "a-%x"}},
		"which the URL doesn't":   {URL: "https://h/in", Format: SplunkHEC, Indexing: Indexing{Ack: true}},
		"Request-Channel can't":   {URL: "https://h", Headers: map[string]string{"X-Splunk-Request-Channel": "x"}},
		"the token URL":           {URL: "https://h", OAuth2: OAuth2{TokenURL: "https://u:s3cret@h"}},
		"a client id and":         {URL: "https://h", OAuth2: OAuth2{TokenURL: "https://h", ClientSecret: "s3cret"}},
		"oauth2 excludes":         {URL: "https://h", Token: "s3cret", OAuth2: OAuth2{TokenURL: "https://h"}},
		"authorities":             {URL: "https://h", TLS: tlsconf.Config{CAFile: "/nonexistent"}},
		"both or not":             {URL: "https://h", TLS: tlsconf.Config{CertFile: "x"}},
		"neither 1.2":             {URL: "https://h", TLS: tlsconf.Config{MinVersion: "1.1"}},
		"can't be negative":       {URL: "https://h", Timeout: -1},
	} {
		_, err := New(c)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%v: want %q in it, and no secret", err, want)
		}
	}
	c := Config{URL: "https://h/s3cret", Token: "s3cret"}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s"} {
		if s := fmt.Sprintf(verb, c); strings.Contains(s, "s3cret") {
			t.Errorf("TestInvariant10: %s", s)
		}
	}
}

// A proxy's refusal is told from the receiver's.
func TestProxy(t *testing.T) {
	proxy := newReceiver(t, nil)
	for status, want := range map[int]fault.Kind{407: fault.Held, 403: fault.Held, 503: fault.Temporary, 204: fault.Held} {
		proxy.answer = func(w http.ResponseWriter) { w.WriteHeader(status) }
		o := open(t, Config{URL: "https://siem.example.com", Proxy: "http://u:s3cret@" + proxy.addr})
		err := o.Send(t.Context(), batch(`{}`))
		if fault.KindOf(err) != want || !strings.Contains(err.Error(), "the proxy answered") || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%d: %v, %v", status, fault.KindOf(err), err)
		}
	}
	// This machine is never asked for through it.
	in := newReceiver(t, nil)
	o := open(t, Config{URL: "http://" + in.addr, Proxy: "http://" + proxy.addr})
	if err := o.Send(t.Context(), batch(`{}`)); err != nil {
		t.Error(err)
	}
	t.Setenv("NO_PROXY", "inside.example.com,10.0.0.0/8")
	find := open(t, Config{URL: "https://h", Proxy: "http://p:1"}).transport.Proxy
	for host, want := range map[string]string{"h": "p:1", "siem.inside.example.com": "", "10.1.2.3": "", "localhost:1": "", "[::1]": ""} {
		u, err := find(&http.Request{URL: &url.URL{Scheme: "https", Host: host}})
		if err != nil || (u == nil) != (want == "") || u != nil && u.Host != want {
			t.Errorf("%s: %v, %v", host, u, err)
		}
	}
}
