package corpus

import (
	"fmt"
	"strconv"
	"time"
)

// The log types, as the folder has them
// (https://docs.aws.amazon.com/awscloudtrail/latest/userguide/get-and-view-cloudtrail-log-files.html).
const (
	CloudTrail      = "CloudTrail"
	Insight         = "CloudTrail-Insight"
	NetworkActivity = "CloudTrail-NetworkActivity"
	Aggregated      = "CloudTrail-Aggregated"
)

// LogTypes are the four.
func LogTypes() []string { return []string{CloudTrail, Insight, NetworkActivity, Aggregated} }

// Organization and OtherOrganization are the invented organisations.
const (
	Organization      = "o-example0org"
	OtherOrganization = "o-another0org"
)

// accounts are the ids that AWS itself uses in examples.
var accounts = []string{"111122223333", "444455556666", "777788889999", "123456789012", "555566667777"}

// Account returns the n-th invented account id, from 0.
func Account(n int) string {
	if n < len(accounts) {
		return accounts[n]
	}
	return fmt.Sprintf("%012d", n) // no real id begins with so many zeros
}

// Regions are the regions that ordinary traffic comes from when none are named.
func Regions() []string { return []string{"us-east-1", "eu-central-1", "ap-southeast-2"} }

// Layout is where a trail puts its objects in the bucket.
type Layout struct {
	Name         string
	Prefix       string // the trail's S3 key prefix, without "AWSLogs/"
	Organization string // "" for a trail of one account
	OldNames     bool   // no "_" before the unique part of the name
}

// Layouts are all that CloudTrail has: an account's own trail, a prefix, an
// organisation's trail, both, Control Tower's double organisation (the
// organisation is the prefix, too), and the names of old.
func Layouts() []Layout {
	return []Layout{
		{Name: "plain"},
		{Name: "prefix", Prefix: "audit/trails"},
		{Name: "organization", Prefix: "org", Organization: Organization},
		{Name: "control-tower", Prefix: OtherOrganization, Organization: OtherOrganization},
		{Name: "old-names", Prefix: "old", OldNames: true},
	}
}

// root is `[prefix/]AWSLogs/[o-…/]`.
func (l Layout) root() string {
	s := "AWSLogs/"
	if l.Prefix != "" {
		s = l.Prefix + "/" + s
	}
	if l.Organization != "" {
		s += l.Organization + "/"
	}
	return s
}

// key names an object of the layout: in the folder of day, with stamp in its name.
func (l Layout) key(account, logType, region string, day, stamp time.Time, unique string) string {
	sep := "_"
	if l.OldNames {
		sep = ""
	}
	return l.root() + account + "/" + logType + "/" + region + "/" + day.Format("2006/01/02/") +
		account + "_" + logType + "_" + region + "_" + stamp.Format("20060102T1504Z") + sep + unique + ".json.gz"
}

// object begins a log object of the sequence's stream: everything but what it
// holds.
func (g *gen) object(l Layout, stamp time.Time) Object {
	return Object{
		Kind:         Log,
		Key:          l.key(g.account, g.logType, g.region, stamp, stamp, g.unique()),
		Prefix:       l.Prefix,
		Organization: l.Organization,
		Account:      g.account,
		LogType:      g.logType,
		Region:       g.region,
		Stamp:        stamp,
		AppearsAt:    stamp.Add(-5*time.Minute + time.Duration(g.Int64N(int64(8*time.Minute)))).Truncate(time.Second),
	}
}

const alnum = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"

// unique is the random part of a name: 16 characters.
func (g *gen) unique() string {
	b := make([]byte, 16)
	for i := range b {
		b[i] = alnum[g.IntN(len(alnum))]
	}
	return string(b)
}

func itoa(n int) string { return strconv.Itoa(n) }
