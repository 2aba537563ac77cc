package config

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"time"
)

func (f *findings) source(at string, s *Source) {
	f.labels(child(at, "labels"), s.Labels)
	f.bucket(at, &s.Bucket)
	f.scope(at, &s.Scope)
	f.listing(at, &s.Listing)
	if s.Start == (Start{}) {
		f.bad(child(at, "start"), "is missing", `write "-24h", or remove the key`)
	}
	f.credentials(child(at, "credentials"), &s.Credentials)
	f.accounts(at, s)
	for i := range s.Filters {
		f.filter(item(child(at, "filter"), i), &s.Filters[i])
	}
}

func (f *findings) bucket(at string, b *Bucket) {
	f.bucketName(child(at, "bucket"), b.Name)
	f.prefix(child(at, "prefix"), b.Prefix)
	if b.Region != "auto" && !regionPattern.MatchString(b.Region) {
		f.bad(child(at, "region"), quoted(b.Region)+" is no region", `write one like "eu-central-1", or "auto"`)
	}
	if b.Owner != "" && !accountPattern.MatchString(b.Owner) {
		f.bad(child(at, "bucket_owner"), quoted(b.Owner)+" is no account id", accountRemedy)
	}
	f.path(child(child(at, "tls"), "ca_file"), b.CAFile)
	if b.Endpoint != "" {
		f.endpoint(child(at, "endpoint"), b)
	}
	// From the rules of the SDK's endpoint resolver.
	if b.Endpoint != "" && b.FIPS {
		f.bad(child(at, "fips"), "an endpoint is named, and FIPS chooses another", "name the FIPS endpoint in endpoint, or remove one of the two")
	}
	if b.Endpoint != "" && b.DualStack {
		f.bad(child(at, "dual_stack"), "an endpoint is named, and dual stack chooses another", "name the dual-stack endpoint in endpoint, or remove one of the two")
	}
	if b.FIPS && strings.HasPrefix(b.Region, "cn-") {
		f.bad(child(at, "fips"), "S3 has no FIPS endpoints in China", "remove it")
	}
}

func (f *findings) endpoint(path string, b *Bucket) {
	const example = "https://s3.example.com"
	u := f.web(path, b.Endpoint, b.AllowHTTP, "allow_http = true in the source", example)
	if u == nil {
		return
	}
	switch {
	case u.User != nil:
		f.bad(path, "credentials stand in the URL", "write them in [source.credentials]")
	case u.Path != "" && u.Path != "/" || u.RawQuery != "":
		f.bad(path, "something follows the host", "write one like "+quoted(example)+"; the bucket has its own key")
	}
}

var bucketPattern = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$`)

// bucketName follows Amazon S3's "General purpose bucket naming rules".
func (f *findings) bucketName(path, name string) {
	bad := func(message, remedy string) { f.bad(path, message, remedy) }
	switch {
	case name == "":
		bad("is missing", "name the bucket that the trail writes to")
	case strings.HasPrefix(name, "arn:"):
		bad("this is an ARN", "write the bucket's name only")
	case strings.ContainsAny(name, "/:"):
		bad(quoted(name)+" is more than a name", "write the bucket's name only; what follows it in the path goes into prefix")
	case strings.HasSuffix(name, "--x-s3"):
		bad(quoted(name)+" is a directory bucket: its listing has no order, so that nothing can be found by it",
			"let the trail write to a general purpose bucket")
	case strings.HasSuffix(name, "-s3alias"), strings.HasSuffix(name, "--ol-s3"), strings.HasSuffix(name, ".mrap"),
		strings.HasSuffix(name, "--table-s3"):
		bad(quoted(name)+" is the alias of an access point or of something else that is no bucket", "write the name of the bucket behind it")
	case strings.HasPrefix(name, "xn--"), strings.HasPrefix(name, "sthree-"):
		bad(quoted(name)+" begins as no bucket may", "look the name up in the S3 console")
	case !bucketPattern.MatchString(name), strings.Contains(name, ".."):
		bad(quoted(name)+" is no bucket name", "write 3 to 63 lower-case letters, digits, dots and hyphens, a letter or digit at both ends")
	default:
		if _, err := netip.ParseAddr(name); err == nil {
			bad(quoted(name)+" is an address", "write the bucket's name; the server goes into endpoint")
		}
	}
}

// maxPrefix is what CloudTrail's CreateTrail allows for S3KeyPrefix.
const maxPrefix = 200

func (f *findings) prefix(path, prefix string) {
	bad := func(message, remedy string) { f.bad(path, message, remedy) }
	switch {
	case slices.Contains(strings.Split(prefix, "/"), "AWSLogs"):
		bad("AWSLogs is where the logs begin, not part of the prefix", "write only what comes before AWSLogs/, without the slash, and pin accounts and regions with their own keys")
	case strings.HasPrefix(prefix, "/"):
		bad(quoted(prefix)+" begins with a slash, and keys don't", "write it without the slash")
	case strings.HasSuffix(prefix, "/"):
		bad(quoted(prefix)+" ends with a slash, which stands there anyway", "write it without the slash")
	case len(prefix) > maxPrefix:
		bad(fmt.Sprintf("it is %d bytes long", len(prefix)), fmt.Sprintf("write the trail's prefix, which has at most %d", maxPrefix))
	case hasControl(prefix):
		bad("there is a line break or another control character in it", "remove it")
	}
}

// overlaps finds sources that share their state: state belongs to bucket and
// prefix. Two prefixes share no object unless they are the same, since
// AWSLogs/ follows the prefix and may not stand within it; neither "a" and
// "a/b" nor "" and "a" meet.
func (f *findings) overlaps(sources []Source) {
	type place struct{ bucket, prefix string }
	first := map[place]int{}
	for i := range sources {
		s := &sources[i]
		if !s.Enabled || s.Bucket.Name == "" {
			continue
		}
		p := place{s.Bucket.Name, s.Bucket.Prefix}
		j, ok := first[p]
		if !ok {
			first[p] = i
			continue
		}
		f.bad(child(item("source", i), "bucket"),
			fmt.Sprintf("source %s%s has the same bucket and prefix, and so the same state",
				quoted(sources[j].Name), f.where(child(item("source", j), "bucket"))),
			"make them one source, also if they pin different accounts or regions")
	}
}

var (
	accountPattern      = regexp.MustCompile(`^[0-9]{12}$`)
	organizationPattern = regexp.MustCompile(`^o-[a-z0-9]{10,32}$`)
	regionPattern       = regexp.MustCompile(`^[a-z]{2,}(-[a-z]+)+-[0-9]+$`)
)

const accountRemedy = `write its 12 digits in quotes, without hyphens: "111122223333"`

var logTypes = []string{"CloudTrail", "CloudTrail-Insight", "CloudTrail-NetworkActivity", "CloudTrail-Aggregated"}

func (f *findings) scope(at string, s *Scope) {
	path := child(at, "log_types")
	for i, t := range s.LogTypes {
		if f.oneOf(item(path, i), t, logTypes...) && slices.Contains(s.LogTypes[:i], t) {
			f.bad(item(path, i), quoted(t)+" is there twice", "remove one")
		}
	}

	path = child(at, "organizations")
	switch {
	case len(s.Organizations) > 1 && slices.Contains(s.Organizations, "none"):
		f.bad(path, `"none" says that there is no organisation level, and others are named`,
			`write ["none"], or the organisations only`)
	case !slices.Equal(s.Organizations, []string{"none"}):
		f.each(path, s.Organizations, organizationPattern, "no organisation id", `write one like "o-a1b2c3d4e5", or ["none"]`)
	}

	f.each(child(at, "accounts"), s.Accounts, accountPattern, "no account id", accountRemedy)
	f.each(child(at, "exclude_accounts"), s.ExcludeAccounts, accountPattern, "no account id", accountRemedy)
	f.contradiction(child(at, "exclude_accounts"), s.ExcludeAccounts, s.Accounts, "accounts")

	const regionRemedy = `write one like "eu-central-1"`
	f.each(child(at, "regions"), s.Regions, regionPattern, "no region", regionRemedy)
	f.each(child(at, "exclude_regions"), s.ExcludeRegions, regionPattern, "no region", regionRemedy)
	f.contradiction(child(at, "exclude_regions"), s.ExcludeRegions, s.Regions, "regions")
}

func (f *findings) contradiction(path string, excluded, wanted []string, key string) {
	for i, s := range excluded {
		if slices.Contains(wanted, s) {
			f.bad(item(path, i), quoted(s)+" is named in "+key+", too", "remove it from one of the two")
		}
	}
}

func (f *findings) listing(at string, l *Listing) {
	const shortest = 100 * time.Millisecond
	refresh := f.durationBetween(child(at, "refresh"), l.Refresh, shortest, day)
	idle := f.durationBetween(child(at, "idle_refresh"), l.IdleRefresh, shortest, day)
	if refresh && idle && l.Refresh > l.IdleRefresh {
		f.bad(child(at, f.blamed(at, "refresh", "idle_refresh")),
			fmt.Sprintf("refresh (%v) is longer than idle_refresh (%v)", l.Refresh, l.IdleRefresh),
			fmt.Sprintf("set idle_refresh to %v or more", l.Refresh))
	}
	back := f.durationBetween(child(at, "look_back"), l.LookBack, time.Minute, 365*day)
	horizon := f.durationBetween(child(at, "late_horizon"), l.LateHorizon, time.Hour, 365*day)
	if back && horizon && l.LookBack > l.LateHorizon {
		f.bad(child(at, f.blamed(at, "look_back", "late_horizon")),
			fmt.Sprintf("look_back (%v) is longer than late_horizon (%v)", l.LookBack, l.LateHorizon),
			fmt.Sprintf("set look_back to %v or less", l.LateHorizon))
	}
	if back && l.LookBack < Duration(10*time.Minute) {
		f.warn(child(at, "look_back"), "objects appear up to several minutes out of order, and those wait for the next sweep",
			`write "1h"`)
	}
	if horizon && l.LateHorizon < Duration(30*day) {
		f.warn(child(at, "late_horizon"), "CloudTrail delivers up to 30 days late, and what appears after the horizon is lost",
			`write "30d"`)
	}
	f.durationBetween(child(at, "discovery"), l.Discovery, shortest, 30*day)
	f.between(child(at, "max_lists_per_minute"), l.MaxListsPerMinute, 0, 1_000_000)
}

// blamed returns which of two keys that don't agree is to be named: the one
// that stands in the file, else the second.
func (f *findings) blamed(at, a, b string) string {
	if f.isSet(child(at, a)) && !f.isSet(child(at, b)) {
		return a
	}
	return b
}

// credentialKeys says which types have a key.
func credentialKeys(c *Credentials) []struct {
	key   string
	set   bool
	types []string
} {
	return []struct {
		key   string
		set   bool
		types []string
	}{
		{"access_key_id", c.AccessKeyID != "", []string{"static"}},
		{"secret_access_key", !c.SecretAccessKey.Empty(), []string{"static"}},
		{"session_token", !c.SessionToken.Empty(), []string{"static"}},
		{"profile", c.Profile != "", []string{"profile"}},
		{"shared_files", len(c.SharedFiles) > 0, []string{"profile"}},
		{"token_file", c.TokenFile != "", []string{"web-identity"}},
		{"command", c.Command != "", []string{"process"}},
		{"imds_endpoint", c.IMDSEndpoint != "", []string{"ec2-role"}},
	}
}

func (f *findings) credentials(at string, c *Credentials) {
	known := f.oneOf(child(at, "type"), c.Type,
		"auto", "static", "profile", "ec2-role", "container", "web-identity", "process")
	required := map[string][]string{
		"static":       {"access_key_id", "secret_access_key"},
		"web-identity": {"token_file"},
		"process":      {"command"},
	}[c.Type]
	for _, k := range credentialKeys(c) {
		switch {
		case k.set && known && !slices.Contains(k.types, c.Type):
			f.bad(child(at, k.key), "means nothing with credentials of type "+c.Type,
				"remove it, or write type = "+quoted(k.types[0]))
		case !k.set && slices.Contains(required, k.key):
			f.bad(child(at, k.key), "is missing", "credentials of type "+c.Type+" need it")
		}
	}
	f.path(child(at, "token_file"), c.TokenFile)
	for i, p := range c.SharedFiles {
		f.path(item(child(at, "shared_files"), i), p)
	}
	const example = "https://sts.eu-central-1.amazonaws.com"
	if c.STSEndpoint != "" {
		f.web(child(at, "sts_endpoint"), c.STSEndpoint, false, "an address on this machine", example)
	}
	if c.IMDSEndpoint != "" {
		f.web(child(at, "imds_endpoint"), c.IMDSEndpoint, true, "", "http://169.254.169.254")
	}
	for i := range c.AssumeRole {
		f.assumeRole(item(child(at, "assume_role"), i), &c.AssumeRole[i])
	}
}

var (
	rolePattern    = regexp.MustCompile(`^arn:aws[a-z-]*:iam::[0-9]{12}:role/[\w+=,.@/-]+$`)
	sessionPattern = regexp.MustCompile(`^[\w+=,.@-]{2,64}$`)
)

// assumeRole follows the limits of STS's AssumeRole.
func (f *findings) assumeRole(at string, r *AssumeRole) {
	if !rolePattern.MatchString(r.ARN) {
		f.bad(child(at, "arn"), quoted(r.ARN)+" is no role", `write one like "arn:aws:iam::111122223333:role/trailpoll-read"`)
	}
	if !sessionPattern.MatchString(r.SessionName) {
		f.bad(child(at, "session_name"), quoted(r.SessionName)+" is no session name", "write 2 to 64 letters, digits and _+=,.@-")
	}
	f.durationBetween(child(at, "duration"), r.Duration, 15*time.Minute, 12*time.Hour)
}

func (f *findings) accounts(at string, s *Source) {
	seen := map[string]bool{}
	for i, a := range s.Accounts {
		at := item(child(at, "account"), i)
		path := child(at, "id")
		f.labels(child(at, "labels"), a.Labels)
		if hasControl(a.Name) {
			f.bad(child(at, "name"), "there is a line break or another control character in it", "remove it")
		}
		switch {
		case a.ID == "":
			f.bad(path, "is missing", accountRemedy)
		case !accountPattern.MatchString(a.ID):
			f.bad(path, quoted(a.ID)+" is no account id", accountRemedy)
		case seen[a.ID]:
			f.bad(path, quoted(a.ID)+" is there twice", "make them one")
		case !a.Enabled && slices.Contains(s.Scope.Accounts, a.ID):
			f.bad(child(at, "enabled"), quoted(a.ID)+" is left out here and named in accounts", "remove it from one of the two")
		}
		seen[a.ID] = true
	}
}

func (f *findings) filter(at string, r *Filter) {
	f.oneOf(child(at, "action"), r.Action, "drop", "keep")
	switch {
	case r.When == "" && r.Match == "":
		f.bad(child(at, "when"), "is missing", "write when or match")
	case r.When != "" && r.Match != "":
		f.bad(child(at, "match"), "when is there, too", "write two filters")
	}
}
