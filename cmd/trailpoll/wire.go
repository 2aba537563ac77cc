package main

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/trailpoll/trailpoll/agent"
	"github.com/trailpoll/trailpoll/agent/config"
	"github.com/trailpoll/trailpoll/agent/output/file"
	"github.com/trailpoll/trailpoll/agent/output/https"
	"github.com/trailpoll/trailpoll/agent/output/render"
	"github.com/trailpoll/trailpoll/agent/output/syslog"
	"github.com/trailpoll/trailpoll/agent/output/tlsconf"
	"github.com/trailpoll/trailpoll/agent/record"
	"github.com/trailpoll/trailpoll/agent/s3source"
)

// Batches of outputs whose configuration does not size them: large enough that
// a commit for each is cheap, small enough that little is sent twice.
const (
	streamBatchRecords = 500
	streamBatchBytes   = 256 << 10
	streamBatchWait    = 200 * time.Millisecond
)

// wiring is what a configuration was made into, with what is to be closed.
type wiring struct {
	agent   agent.Config
	filters []sourceFilter // of the sources that have one
	closers []io.Closer
}

// Close closes outputs and sources.
func (w *wiring) Close() error {
	var err error
	for _, c := range w.closers {
		err = errors.Join(err, c.Close())
	}
	return err
}

// wire makes what the configuration describes. Nothing is connected yet.
func wire(c *config.Config, stdout io.Writer) (*wiring, error) {
	w := &wiring{agent: agent.Config{
		Downloads:    c.Agent.Downloads,
		Memory:       int64(c.Agent.Memory),
		MaxRecord:    int(c.Agent.MaxRecord),
		DrainTimeout: time.Duration(c.Agent.DrainTimeout),
	}}
	for i := range c.Outputs {
		o := &c.Outputs[i]
		if !o.Enabled {
			w.agent.Dormant = append(w.agent.Dormant, o.Name)
			continue
		}
		out, err := wireOutput(&c.Agent, o, stdout)
		if err != nil {
			return nil, fmt.Errorf("output %s: %w", o.Name, err)
		}
		w.agent.Outputs = append(w.agent.Outputs, out)
		w.closers = append(w.closers, out.Output)
	}
	for i := range c.Sources {
		s := &c.Sources[i]
		if !s.Enabled {
			continue
		}
		store, err := s3source.New(bucketConfig(&c.Agent, s))
		if err != nil {
			return nil, fmt.Errorf("source %s: %w", s.Name, err)
		}
		source := wireSource(s, store)
		w.closers = append(w.closers, closer(store.Close))
		rules, err := wireFilter(s)
		if err != nil {
			return nil, fmt.Errorf("source %s: %w", s.Name, err)
		}
		if rules != nil {
			source.Filter = rules
			w.filters = append(w.filters, sourceFilter{s.Name, rules})
		}
		w.agent.Sources = append(w.agent.Sources, source)
	}
	return w, nil
}

type closer func()

func (c closer) Close() error { c(); return nil }

func bucketConfig(a *config.Agent, s *config.Source) s3source.Config {
	b, c := &s.Bucket, &s.Credentials
	return s3source.Config{
		Bucket: b.Name, Region: b.Region, Endpoint: b.Endpoint, PathStyle: b.PathStyle,
		FIPS: b.FIPS, DualStack: b.DualStack, RequesterPays: b.RequesterPays, BucketOwner: b.Owner,
		CAFile: b.CAFile, Proxy: a.Proxy.Reveal(),
		Credentials: wireCredentials(c),
	}
}

func wireCredentials(c *config.Credentials) s3source.Credentials {
	out := s3source.Credentials{
		Type:            s3source.CredentialsType(c.Type),
		AccessKeyID:     c.AccessKeyID,
		SecretAccessKey: c.SecretAccessKey.Reveal(),
		SessionToken:    c.SessionToken.Reveal(),
		Profile:         c.Profile,
		SharedFiles:     c.SharedFiles,
		TokenFile:       c.TokenFile,
		Command:         c.Command,
		IMDSEndpoint:    c.IMDSEndpoint,
		STSEndpoint:     c.STSEndpoint,
	}
	if c.Files != (config.KeyFiles{}) {
		out.Reload = func() (s3source.Keys, error) {
			now, err := c.Reread(config.SystemEnv())
			if err != nil {
				return s3source.Keys{}, err
			}
			return s3source.Keys{
				AccessKeyID: now.AccessKeyID, SecretAccessKey: now.SecretAccessKey.Reveal(), SessionToken: now.SessionToken.Reveal(),
			}, nil
		}
	}
	for _, r := range c.AssumeRole {
		out.Roles = append(out.Roles, s3source.Role{
			ARN: r.ARN, ExternalID: r.ExternalID, SessionName: r.SessionName, Duration: time.Duration(r.Duration),
		})
	}
	return out
}

func wireSource(s *config.Source, store agent.Bucket) agent.SourceConfig {
	l := &s.Listing
	out := agent.SourceConfig{
		Name: s.Name, Labels: s.Labels, Store: store, Bucket: s.Bucket.Name, Prefix: s.Bucket.Prefix,
		Organizations: s.Scope.Organizations, Accounts: s.Scope.Accounts, LogTypes: s.Scope.LogTypes,
		Regions: s.Scope.Regions, ExcludeAccounts: s.Scope.ExcludeAccounts, ExcludeRegions: s.Scope.ExcludeRegions,
		Start: func(now time.Time) time.Time {
			t, err := s.Start.Resolve(now)
			if err != nil { // the configuration was validated
				return now
			}
			return t
		},
		Refresh: time.Duration(l.Refresh), IdleRefresh: time.Duration(l.IdleRefresh),
		LookBack: time.Duration(l.LookBack), LateHorizon: time.Duration(l.LateHorizon),
		Discovery: time.Duration(l.Discovery), MaxListsPerMinute: l.MaxListsPerMinute,
	}
	for _, a := range s.Accounts {
		if !a.Enabled {
			out.ExcludeAccounts = append(out.ExcludeAccounts, a.ID)
			continue
		}
		if out.AccountInfo == nil {
			out.AccountInfo = make(map[string]agent.AccountInfo)
		}
		out.AccountInfo[a.ID] = agent.AccountInfo{Name: a.Name, Labels: a.Labels}
	}
	return out
}

func wireOutput(a *config.Agent, o *config.Output, stdout io.Writer) (agent.OutputConfig, error) {
	out := agent.OutputConfig{
		Name: o.Name, Sources: o.Sources,
		BatchRecords: streamBatchRecords, BatchBytes: streamBatchBytes, BatchWait: streamBatchWait, Connections: 1,
	}
	form, err := wireRender(o)
	if err != nil {
		return out, err
	}
	switch o.Type {
	case config.TypeHTTPS:
		h := &o.HTTPS
		headers := make(map[string]string, len(h.Headers))
		for k, v := range h.Headers {
			headers[k] = v.Reveal()
		}
		to, err := https.New(https.Config{
			Render: form, Text: o.Record == string(render.CEF),
			URL: h.URL.Reveal(), Format: https.Format(h.Format), Indexing: indexing(h),
			OAuth2: https.OAuth2{
				TokenURL: h.OAuth2.TokenURL, ClientID: h.OAuth2.ClientID, ClientSecret: h.OAuth2.ClientSecret.Reveal(),
				Scopes: h.OAuth2.Scopes, Audience: h.OAuth2.Audience,
			},
			Token: h.Token.Reveal(), Username: h.Username, Password: h.Password.Reveal(), Headers: headers,
			Compression: h.Compression, Timeout: time.Duration(h.Timeout), Connections: h.Connections,
			TLS: tlsConfig(&h.TLS), Proxy: a.Proxy.Reveal(), Version: thisBuild().Version,
		})
		if err != nil {
			return out, err
		}
		out.Output = to
		out.BatchRecords, out.BatchBytes = h.BatchRecords, int(h.BatchBytes)
		out.BatchWait, out.Connections = time.Duration(h.BatchWait), h.Connections
	case config.TypeSyslog:
		l := &o.Syslog
		framing := syslog.Framing(l.Framing)
		if l.Transport != string(syslog.TCP) && l.Transport != string(syslog.TLS) {
			framing = "" // datagrams and RELP have their own
		}
		to, err := syslog.New(syslog.Config{
			Render:    form,
			Addresses: l.Addresses, Transport: syslog.Transport(l.Transport), Framing: framing,
			MessageFormat: syslog.MessageFormat(l.MessageFormat), Version: thisBuild().Version,
			Facility: l.Facility, Severity: l.Severity, AppName: l.AppName, Hostname: l.Hostname,
			MaxMessage: maxMessage(l), ConfirmDelay: time.Duration(l.ConfirmDelay), TLS: tlsConfig(&l.TLS),
		})
		if err != nil {
			return out, err
		}
		out.Output = to
		out.Unacknowledged = unacknowledged(o)
	case config.TypeFile:
		to, err := file.New(file.Config{
			Path: o.File.Path, RotateSize: int64(o.File.RotateSize),
			RotateAge: time.Duration(o.File.RotateAge), Keep: o.File.Keep, Render: form,
		})
		if err != nil {
			return out, err
		}
		out.Output = to
	case config.TypeStdout:
		out.Output = file.NewWriter(stdout, form)
	default:
		return out, fmt.Errorf("type %q is not known", o.Type)
	}
	return out, nil
}

// renderer is what outputs take: a nil interface where records go as they are.
type renderer interface {
	Append(dst []byte, r *record.Record, limit int) ([]byte, error)
}

// wireRender makes the form in which an output sends records. It is nil for a
// record as it is, unless that may have to be reduced.
func wireRender(o *config.Output) (renderer, error) {
	oversize := render.Park // without a limit nothing is too large
	if o.Type == config.TypeSyslog {
		oversize = render.Oversize(o.Syslog.Oversize)
	}
	if o.Record == string(render.Raw) && oversize == render.Park {
		return nil, nil //nolint:nilnil // nil is what outputs know as "as it is"
	}
	return render.New(render.Config{Record: render.Form(o.Record), Oversize: oversize})
}

// indexing leaves out what the format has no place for: the source type has a
// default, whatever the format.
func indexing(h *config.HTTPS) https.Indexing {
	x := https.Indexing{Ack: h.Indexing.Ack, Index: h.Indexing.Index, Fields: h.Indexing.Fields}
	if https.Format(h.Format) == https.SplunkHEC {
		x.Sourcetype = h.Indexing.Sourcetype
	}
	return x
}

// maxMessage is the longest message: the default is more than a datagram holds.
func maxMessage(l *config.Syslog) int {
	const datagram = 65507 // RFC 768 over IPv4
	if l.Transport == string(syslog.UDP) {
		return min(int(l.MaxMessage), datagram)
	}
	return int(l.MaxMessage)
}

func tlsConfig(t *config.TLS) tlsconf.Config {
	return tlsconf.Config{
		CAFile: t.CAFile, CertFile: t.CertFile, KeyFile: t.KeyFile,
		ServerName: t.ServerName, MinVersion: t.MinVersion,
	}
}

// unacknowledged reports whether an output's transport has no acknowledgement.
func unacknowledged(o *config.Output) bool {
	return o.Type == config.TypeSyslog && o.Syslog.Transport == string(syslog.UDP)
}
