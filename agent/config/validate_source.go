package config

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/trailpoll/trailpoll/regions"
)

func (f *findings) source(at string, s *Source) {
	f.labels(child(at, "labels"), s.Labels)
	f.understand(at, s)
	f.bucket(at, &s.Bucket)
	f.scope(at, &s.Scope)
	f.listing(at, &s.Listing)
	if s.Start == (Start{}) {
		f.bad(child(at, "start"), "is missing", `write "-24h", or remove the key`)
	}
	f.credentials(child(at, "credentials"), &s.Credentials, s.Bucket.Region)
	f.accounts(at, s)
	for i := range s.Filters {
		f.filter(item(child(at, "filter"), i), &s.Filters[i])
	}
}

func (f *findings) bucket(at string, b *Bucket) {
	f.bucketName(child(at, "bucket"), b.Name)
	f.prefix(child(at, "prefix"), b.Prefix)
	f.region(at, b)
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
	if b.FIPS && b.Endpoint == "" && b.Region != "auto" && !regions.HasS3FIPS(b.Region) {
		f.bad(child(at, "fips"), "S3 has no FIPS endpoint in "+b.Region, `remove it, or name one in endpoint; "trailpoll regions --fips" prints them`)
	}
}

// region judges the bucket's region, and takes an old name for the one it means.
func (f *findings) region(at string, b *Bucket) {
	path := child(at, "region")
	if b.Region == "auto" {
		return
	}
	if r, ok := regions.Lookup(b.Region); ok {
		if r.Name != b.Region {
			f.warn(path, quoted(b.Region)+" is taken for "+r.Name, "write region = "+quoted(r.Name))
			b.Region = r.Name
		}
		return
	}
	// Other implementations have regions of any name.
	if _, ok := regions.PartitionOf(b.Region); ok || b.Endpoint != "" && regionName.MatchString(b.Region) {
		return
	}
	remedy := `write one like "eu-central-1", or "auto"; "trailpoll regions" prints them`
	var names []string
	for _, r := range regions.All() {
		names = append(names, r.Name)
	}
	if s := nearest(b.Region, names); s != "" {
		remedy = "did you mean " + quoted(s) + "?"
	}
	f.bad(path, quoted(b.Region)+" is no region", remedy)
}

var regionName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$`)

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

// bucketName follows Amazon S3's "General purpose bucket naming rules", and
// says which one is broken.
func (f *findings) bucketName(path, name string) {
	bad := func(message, remedy string) { f.bad(path, message, remedy) }
	const look = "look the name up in the S3 console"
	alien := strings.IndexFunc(name, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '.' && r != '-'
	})
	_, noAddress := netip.ParseAddr(name)
	switch {
	case name == "":
		bad("is missing", "name the bucket that the trail writes to")
	case strings.HasSuffix(name, "--x-s3"):
		bad(quoted(name)+" is a directory bucket: its listing has no order, so that nothing can be found by it",
			"let the trail write to a general purpose bucket")
	case slices.ContainsFunc(aliasEnds, func(end string) bool { return strings.HasSuffix(name, end) }):
		bad(quoted(name)+" is the alias of an access point or of something else that is no bucket", "write the name of the bucket behind it")
	case slices.ContainsFunc(reservedStarts, func(start string) bool { return strings.HasPrefix(name, start) }):
		bad(quoted(name)+" begins as no bucket may", look)
	case noAddress == nil:
		bad(quoted(name)+" is an address", "write the bucket's name; the server goes into endpoint")
	case alien >= 0 && name[alien] >= 'A' && name[alien] <= 'Z':
		bad(quoted(name)+" is no bucket name: it has an upper-case letter", "write it in lower case, as the S3 console does")
	case alien >= 0:
		r, _ := utf8.DecodeRuneInString(name[alien:])
		bad(quoted(name)+" is no bucket name: it has "+strconv.QuoteRune(r)+" in it, and a name has lower-case letters, digits, dots and hyphens", look)
	case len(name) < 3 || len(name) > 63:
		bad(fmt.Sprintf("%s is no bucket name: it has %d characters, and a name has 3 to 63", quoted(name), len(name)), look)
	case strings.Trim(name[:1]+name[len(name)-1:], ".-") != name[:1]+name[len(name)-1:]:
		bad(quoted(name)+" is no bucket name: it begins or ends with a dot or a hyphen", look)
	case strings.Contains(name, ".."):
		bad(quoted(name)+" is no bucket name: it has two dots in a row", look)
	}
}

// IsBucketName reports whether a bucket may be called so.
func IsBucketName(name string) bool {
	f := newFindings(nil)
	f.bucketName("bucket", name)
	return len(f.problems) == 0
}

// aliasEnds and reservedStarts are those of the naming rules.
var (
	aliasEnds      = []string{"-s3alias", "--ol-s3", ".mrap", "--table-s3"}
	reservedStarts = []string{"xn--", "sthree-", "amzn-s3-demo-"}
)

// maxPrefix is what CloudTrail's CreateTrail allows for S3KeyPrefix.
const maxPrefix = 200

func (f *findings) prefix(path, prefix string) {
	bad := func(message, remedy string) { f.bad(path, message, remedy) }
	switch {
	case slices.Contains(strings.Split(prefix, "/"), "AWSLogs"):
		bad("what follows AWSLogs/ is not part of the prefix, and can't be understood as organisation, account, log type and region",
			"write only what comes before AWSLogs/, and pin with organizations, accounts, log_types and regions; dates go into start")
	case strings.HasPrefix(prefix, "/"):
		bad(quoted(prefix)+" begins with a slash, and keys don't", "write it without the slash")
	case strings.HasSuffix(prefix, "/"):
		bad(quoted(prefix)+" ends with more than one slash", "write it as the S3 console shows the folder, without the slash at the end")
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

// FilterJudge judges what this package can't read: expressions and regular
// expressions. It is asked about each filter that has an action and one of
// when and match.
type FilterJudge func(Filter) []FilterFlaw

// FilterFlaw is what a FilterJudge has to say.
type FilterFlaw struct {
	Key     string // when or match
	Message string
	Remedy  string
	Mild    bool // a warning
}

func (f *findings) judged(c *Config, judges []FilterJudge) {
	for i := range c.Sources {
		for j, rule := range c.Sources[i].Filters {
			if rule.Action != "drop" && rule.Action != "keep" || (rule.When == "") == (rule.Match == "") {
				continue // said already
			}
			at := item(child(item("source", i), "filter"), j)
			for _, judge := range judges {
				for _, flaw := range judge(rule) {
					if path := child(at, flaw.Key); flaw.Mild {
						f.warn(path, flaw.Message, flaw.Remedy)
					} else {
						f.bad(path, flaw.Message, flaw.Remedy)
					}
				}
			}
		}
	}
}
