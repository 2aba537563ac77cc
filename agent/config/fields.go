package config

import "slices"

// field is one key of a table and where its value goes.
type field struct {
	key string
	// to is a pointer to one of the value types, a group, a list, or a
	// reference. See decoder.value.
	to any
	// types are the output types that have the key; nil = not a matter of type.
	types []string
}

// group is the fields of a table.
type group []field

// list makes room for the tables of an array and returns the fields of each.
type list func(raw []map[string]any) []group

// reference is a plain text that may also be written as env: or file:, because
// what it stands beside is a secret.
type reference struct{ text *string }

func (c *Config) fields() group {
	return group{
		{key: "agent", to: c.Agent.fields()},
		{key: "source", to: listOf(&c.Sources,
			func(map[string]any) Source { return DefaultSource() },
			func(s *Source, _ map[string]any) group { return s.fields() })},
		{key: "output", to: listOf(&c.Outputs,
			func(raw map[string]any) Output { return DefaultOutput(typeOf(raw)) },
			func(o *Output, raw map[string]any) group { return o.fields(typeOf(raw)) })},
	}
}

// listOf binds an array of tables to a slice. makeOne and fields are shown the
// table, since the keys of an output hang on its type.
func listOf[T any](to *[]T, makeOne func(map[string]any) T, fields func(*T, map[string]any) group) list {
	return func(raw []map[string]any) []group {
		*to = make([]T, len(raw))
		groups := make([]group, len(raw))
		for i, r := range raw {
			(*to)[i] = makeOne(r)
			groups[i] = fields(&(*to)[i], r)
		}
		return groups
	}
}

// typeOf returns the type that an output's table names, "" if it names none.
func typeOf(raw map[string]any) string {
	s, _ := raw["type"].(string)
	return s
}

func (a *Agent) fields() group {
	return group{
		{key: "state_dir", to: &a.StateDir},
		{key: "log_level", to: &a.LogLevel},
		{key: "log_format", to: &a.LogFormat},
		{key: "log_file", to: &a.LogFile},
		{key: "listen", to: &a.Listen},
		{key: "listen_token", to: &a.ListenToken},
		{key: "downloads", to: &a.Downloads},
		{key: "memory", to: &a.Memory},
		{key: "max_record", to: &a.MaxRecord},
		{key: "drain_timeout", to: &a.DrainTimeout},
		{key: "proxy", to: &a.Proxy},
	}
}

func (s *Source) fields() group {
	return group{
		{key: "name", to: &s.Name},
		{key: "enabled", to: &s.Enabled},
		{key: "labels", to: &s.Labels},
		{key: "bucket", to: &s.Bucket.Name},
		{key: "prefix", to: &s.Bucket.Prefix},
		{key: "region", to: &s.Bucket.Region},
		{key: "bucket_owner", to: &s.Bucket.Owner},
		{key: "log_types", to: &s.Scope.LogTypes},
		{key: "organizations", to: &s.Scope.Organizations},
		{key: "accounts", to: &s.Scope.Accounts},
		{key: "exclude_accounts", to: &s.Scope.ExcludeAccounts},
		{key: "regions", to: &s.Scope.Regions},
		{key: "exclude_regions", to: &s.Scope.ExcludeRegions},
		{key: "start", to: &s.Start},
		{key: "refresh", to: &s.Listing.Refresh},
		{key: "idle_refresh", to: &s.Listing.IdleRefresh},
		{key: "look_back", to: &s.Listing.LookBack},
		{key: "late_horizon", to: &s.Listing.LateHorizon},
		{key: "discovery", to: &s.Listing.Discovery},
		{key: "max_lists_per_minute", to: &s.Listing.MaxListsPerMinute},
		{key: "drop_self", to: &s.DropSelf},
		{key: "endpoint", to: &s.Bucket.Endpoint},
		{key: "allow_http", to: &s.Bucket.AllowHTTP},
		{key: "path_style", to: &s.Bucket.PathStyle},
		{key: "fips", to: &s.Bucket.FIPS},
		{key: "dual_stack", to: &s.Bucket.DualStack},
		{key: "requester_pays", to: &s.Bucket.RequesterPays},
		{key: "tls", to: group{{key: "ca_file", to: &s.Bucket.CAFile}}},
		{key: "credentials", to: s.Credentials.fields()},
		{key: "account", to: listOf(&s.Accounts,
			func(map[string]any) Account { return defaultAccount() },
			func(a *Account, _ map[string]any) group { return a.fields() })},
		{key: "filter", to: listOf(&s.Filters,
			func(map[string]any) Filter { return Filter{} },
			func(f *Filter, _ map[string]any) group { return f.fields() })},
	}
}

func (c *Credentials) fields() group {
	return group{
		{key: "type", to: &c.Type},
		{key: "access_key_id", to: reference{&c.AccessKeyID}},
		{key: "secret_access_key", to: &c.SecretAccessKey},
		{key: "session_token", to: &c.SessionToken},
		{key: "profile", to: &c.Profile},
		{key: "shared_files", to: &c.SharedFiles},
		{key: "token_file", to: &c.TokenFile},
		{key: "command", to: &c.Command},
		{key: "imds_endpoint", to: &c.IMDSEndpoint},
		{key: "sts_endpoint", to: &c.STSEndpoint},
		{key: "assume_role", to: listOf(&c.AssumeRole,
			func(map[string]any) AssumeRole { return defaultAssumeRole() },
			func(r *AssumeRole, _ map[string]any) group { return r.fields() })},
	}
}

func (r *AssumeRole) fields() group {
	return group{
		{key: "arn", to: &r.ARN},
		{key: "external_id", to: &r.ExternalID},
		{key: "session_name", to: &r.SessionName},
		{key: "duration", to: &r.Duration},
	}
}

func (a *Account) fields() group {
	return group{
		{key: "id", to: &a.ID},
		{key: "name", to: &a.Name},
		{key: "enabled", to: &a.Enabled},
		{key: "labels", to: &a.Labels},
	}
}

func (f *Filter) fields() group {
	return group{
		{key: "action", to: &f.Action},
		{key: "when", to: &f.When},
		{key: "match", to: &f.Match},
	}
}

func (o *Output) fields(outputType string) group {
	// Both have a table of the same name.
	tls := &o.HTTPS.TLS
	if outputType == TypeSyslog {
		tls = &o.Syslog.TLS
	}
	return slices.Concat(
		group{
			{key: "name", to: &o.Name},
			{key: "enabled", to: &o.Enabled},
			{key: "type", to: &o.Type},
			{key: "sources", to: &o.Sources},
			{key: "record", to: &o.Record},
		},
		o.HTTPS.fields().of(TypeHTTPS),
		o.Syslog.fields().of(TypeSyslog),
		o.File.fields().of(TypeFile),
		group{{key: "tls", to: tls.fields()}}.of(TypeHTTPS, TypeSyslog),
		group{{key: "oauth2", to: o.HTTPS.OAuth2.fields()}}.of(TypeHTTPS),
	)
}

// of says which output types have these keys.
func (g group) of(types ...string) group {
	for i := range g {
		g[i].types = types
	}
	return g
}

func (h *HTTPS) fields() group {
	return group{
		{key: "url", to: &h.URL},
		{key: "format", to: &h.Format},
		{key: "token", to: &h.Token},
		{key: "username", to: reference{&h.Username}},
		{key: "password", to: &h.Password},
		{key: "headers", to: &h.Headers},
		{key: "compression", to: &h.Compression},
		{key: "batch_records", to: &h.BatchRecords},
		{key: "batch_bytes", to: &h.BatchBytes},
		{key: "batch_wait", to: &h.BatchWait},
		{key: "connections", to: &h.Connections},
		{key: "timeout", to: &h.Timeout},
		{key: "allow_http", to: &h.AllowHTTP},
		{key: "ack", to: &h.Indexing.Ack},
		{key: "index", to: &h.Indexing.Index},
		{key: "sourcetype", to: &h.Indexing.Sourcetype},
		{key: "fields", to: &h.Indexing.Fields},
	}
}

func (s *Syslog) fields() group {
	return group{
		{key: "addresses", to: &s.Addresses},
		{key: "transport", to: &s.Transport},
		{key: "message_format", to: &s.MessageFormat},
		{key: "framing", to: &s.Framing},
		{key: "facility", to: &s.Facility},
		{key: "severity", to: &s.Severity},
		{key: "app_name", to: &s.AppName},
		{key: "hostname", to: &s.Hostname},
		{key: "max_message", to: &s.MaxMessage},
		{key: "oversize", to: &s.Oversize},
		{key: "confirm_delay", to: &s.ConfirmDelay},
	}
}

func (f *File) fields() group {
	return group{
		{key: "path", to: &f.Path},
		{key: "rotate_size", to: &f.RotateSize},
		{key: "rotate_age", to: &f.RotateAge},
		{key: "keep", to: &f.Keep},
	}
}

func (t *TLS) fields() group {
	return group{
		{key: "ca_file", to: &t.CAFile},
		{key: "cert_file", to: &t.CertFile},
		{key: "key_file", to: &t.KeyFile},
		{key: "server_name", to: &t.ServerName},
		{key: "min_version", to: &t.MinVersion},
	}
}

func (o *OAuth2) fields() group {
	return group{
		{key: "token_url", to: &o.TokenURL},
		{key: "client_id", to: reference{&o.ClientID}},
		{key: "client_secret", to: &o.ClientSecret},
		{key: "scopes", to: &o.Scopes},
		{key: "audience", to: &o.Audience},
	}
}

// schema returns every key there is, by its dotted name.
func schema() map[string]field {
	keys := map[string]field{}
	var walk func(at string, g group)
	walk = func(at string, g group) {
		for _, f := range g {
			name := child(at, f.key)
			keys[name] = f
			switch to := f.to.(type) {
			case group:
				walk(name, to)
			case list:
				walk(name, to([]map[string]any{{}})[0])
			}
		}
	}
	walk("", new(Config).fields())
	return keys
}
