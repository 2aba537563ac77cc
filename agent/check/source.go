package check

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/trailpoll/trailpoll/agent/fault"
	"github.com/trailpoll/trailpoll/agent/listing"
	"github.com/trailpoll/trailpoll/agent/plan"
	"github.com/trailpoll/trailpoll/agent/s3source"
	"github.com/trailpoll/trailpoll/installer/aws"
	"github.com/trailpoll/trailpoll/regions"
)

// Way is how a source comes to its bucket; s3source.Source is one.
type Way interface {
	// Endpoints are the servers it speaks to.
	Endpoints() []s3source.Endpoint
	// Reach connects to one of them and returns what its clock says.
	Reach(ctx context.Context, e s3source.Endpoint) (time.Time, error)
	// Steps goes the way to the credentials, and ends with the first failure.
	Steps(ctx context.Context) []s3source.Step
}

// Bucket is the bucket of a source; s3source.Source is one.
type Bucket interface {
	// Head asks for the bucket itself. What S3 said is returned beside an error.
	Head(ctx context.Context) (s3source.BucketInfo, error)
	// List returns one page.
	List(ctx context.Context, r listing.Request) (listing.Page, error)
	// Inspect tries to read an object.
	Inspect(ctx context.Context, key string) (s3source.ObjectFacts, error)
	// Get opens an object.
	Get(ctx context.Context, key, ifMatch string) (listing.Body, error)
}

// Survey is what a look at all streams of a source has found.
type Survey struct {
	At             time.Time // S3's clock
	Streams        []plan.Stream
	DiscoveryLists int
	Failed         []ListFailure
}

// ListFailure is a prefix that could not be listed.
type ListFailure struct {
	Prefix string
	Err    error
}

// Source is one source to check.
type Source struct {
	Name          string
	Bucket        string
	Prefix        string // without AWSLogs/
	Region        string // as configured: a region or auto
	Owner         string // bucket_owner; "" = any
	RequesterPays bool
	MaxRecord     int // bytes
	// Roles are the ARNs that are assumed, and ExternalID what the last asks for.
	Roles      []string
	ExternalID string
	Settings   plan.Settings
	Way        Way
	Store      Bucket
	// Survey looks at all streams; nil = that is left out.
	Survey func(ctx context.Context) (Survey, error)
}

// Clocks: S3 refuses a request that is 15 minutes off ("RequestTimeTooSkewed",
// Amazon S3 API Reference, error codes).
const (
	serviceS3   = "S3" // of s3source.Endpoint
	skewNoticed = time.Minute
	skewRefused = 15 * time.Minute
)

func (s *Source) check(x *part) {
	reached, at := s.reach(x)
	s.clock(x, at)
	// Credentials come from elsewhere: whoever can't reach S3 may want to know
	// of them, too.
	who, ok := s.credentials(x)
	switch {
	case !reached:
		x.skipAll("S3 was not reached", "bucket", "list", "tree", "get")
		return
	case !ok:
		x.skipAll("there are no credentials", "bucket", "list", "tree", "get")
		return
	}
	partition, ok := s.bucket(x, who)
	if !ok {
		x.skipAll("there is no such bucket for these credentials and this region", "list", "tree", "get")
		return
	}
	setup := s.setup(partition, who)
	if !s.list(x, &setup) {
		x.skipAll("the bucket can't be listed", "tree", "get")
		return
	}
	found := s.tree(x, &setup)
	s.read(x, found, &setup)
	s.archive(x, &found)
	s.cost(x, found)
}

// skipAll skips steps of a source.
func (x *part) skipAll(why string, names ...string) {
	for _, name := range names {
		x.skip(name, triedOf[name], why)
	}
}

// triedOf is what a step would have tried.
var triedOf = map[string]string{
	"credentials": "get credentials and ask STS whose they are",
	"bucket":      "ask S3 for the bucket",
	"list":        "list the bucket",
	"tree":        "look for the trail's folders",
	"get":         "read the newest log file",
}

func (s *Source) where() string { return "s3://" + s.Bucket + "/" + root(s.Prefix) }

// reach goes to each server that the source speaks to.
func (s *Source) reach(x *part) (all bool, at time.Time) {
	all = true
	for _, e := range s.Way.Endpoints() {
		var date time.Time
		began := time.Now()
		err := x.step(func(ctx context.Context) (err error) {
			date, err = s.Way.Reach(ctx, e)
			return err
		})
		tried := "connected to " + e.Service + " at " + e.URL
		if err != nil {
			x.fail("reach", tried, err, "")
			// Without STS a bucket may be read all the same, as the next steps tell.
			all = all && e.Service != serviceS3
			continue
		}
		x.ok("reach", tried, fmt.Sprintf("it answers within %v", max(time.Since(began).Round(time.Millisecond), time.Millisecond)))
		if e.Service == serviceS3 && !date.IsZero() {
			at = date.Add(time.Second / 2).Add(time.Since(began) / 2) // whole seconds, rounded down
		}
	}
	return all, at
}

// clock compares the local clock with S3's.
func (s *Source) clock(x *part, at time.Time) {
	const tried = "compared this machine's clock with S3's"
	if at.IsZero() {
		x.skip("clock", tried, "S3 said no time")
		return
	}
	off := x.plan.Now().Sub(at).Round(time.Second)
	way := "ahead of"
	if off < 0 {
		way = "behind"
	}
	answer := fmt.Sprintf("it is %v %s S3's", off.Abs(), way)
	const remedy = "set the clock, and keep it with NTP: timedatectl set-ntp true, or w32tm /resync on Windows"
	switch {
	case off.Abs() >= skewRefused:
		x.fail("clock", tried, errors.New(answer+": S3 refuses requests that are 15 minutes off"), remedy)
	case off.Abs() >= skewNoticed:
		x.warn("clock", tried, answer+"; S3 refuses requests that are 15 minutes off", remedy)
	default:
		x.ok("clock", tried, "it is right to within a minute")
	}
}

// credentials goes the way to the credentials.
func (s *Source) credentials(x *part) (who s3source.Identity, ok bool) {
	var steps []s3source.Step
	_ = x.within(time.Duration(1+len(s.Roles))*x.plan.StepTimeout, func(ctx context.Context) error {
		steps = s.Way.Steps(ctx)
		return nil
	})
	for i, st := range steps {
		name, tried := "credentials", "got credentials of type "+st.Name+" and asked STS whose they are"
		if i > 0 {
			name, tried = "role", "assumed "+st.Name
		}
		switch {
		case errors.Is(st.Err, s3source.ErrNoSTS):
			x.ok(name, tried, "there are credentials; whose they are can't be asked, since the endpoint is not AWS's")
		case st.Err != nil && st.Got && i == len(s.Roles) && silence(st.Err):
			// S3 alone needs no STS.
			x.warn(name, tried, "there are credentials; whose they are is not known: "+st.Err.Error(),
				"nothing else asks STS here; to see whose the credentials are, let this machine reach STS, or set sts_endpoint")
		case st.Err != nil:
			x.fail(name, tried, st.Err, orElse(fault.HintOf(st.Err), "see whether STS, and where the credentials come from, can be reached from here"))
			return who, false
		default:
			who = st.Identity
			answer := who.ARN
			if !st.Expires.IsZero() {
				answer += ", until " + st.Expires.Format(time.RFC3339)
			}
			x.ok(name, tried, answer)
		}
	}
	if len(steps) == 0 {
		x.fail("credentials", triedOf["credentials"], errors.New("no answer in time"), "see whether the instance's metadata, the command or STS answers")
		return who, false
	}
	return who, true
}

// bucket asks S3 for the bucket. It goes on where S3 refuses, since a LIST says
// more of why.
func (s *Source) bucket(x *part, who s3source.Identity) (partition string, goOn bool) {
	var info s3source.BucketInfo
	err := x.step(func(ctx context.Context) (err error) {
		info, err = s.Store.Head(ctx)
		return err
	})
	tried := "asked S3 for bucket " + s.Bucket
	region := info.Region
	if region == "" && s.Region != s3source.Auto {
		region = s.Region
	}
	if p, ok := regions.PartitionOf(region); ok {
		partition = p.ID
	}
	if own := who.Partition(); own != "" && partition != "" && own != partition {
		x.fail("bucket", tried, fmt.Errorf("the credentials are of partition %s, and the bucket's region %s is in %s", own, region, partition),
			"partitions share nothing: use credentials of an account in "+partition+", or name the bucket of "+own)
		return partition, false
	}
	if info.Region != "" && s.Region != s3source.Auto && info.Region != s.Region {
		x.fail("bucket", tried, fmt.Errorf("it is in %s, and region says %s (HTTP %d)", info.Region, s.Region, info.Status),
			fmt.Sprintf("set region = %q, or \"auto\"", info.Region))
		return partition, false
	}
	answer := "it is there"
	if info.Region != "" {
		answer += ", in " + info.Region
	}
	switch kind := fault.KindOf(err); {
	case err == nil:
		x.ok("bucket", tried, answer)
	case (kind == fault.Denied || kind == fault.BadCredentials) && info.Status != 0:
		x.warn("bucket", tried, fmt.Sprintf("%s, and S3 refuses us (HTTP %d)", answer, info.Status), "the next step says what is missing")
	default:
		x.fail("bucket", tried, err, "")
		return partition, false
	}
	return partition, true
}

// setup is for what policies are filled in.
func (s *Source) setup(partition string, who s3source.Identity) aws.Setup {
	if partition == "" {
		partition = orElse(who.Partition(), "aws")
	}
	return aws.Setup{
		Partition: partition, Bucket: s.Bucket, Prefix: s.Prefix, Reader: reader(who), Roles: s.Roles, ExternalID: s.ExternalID,
	}
}

// reader is the ARN that policies name: that of the role, not of its session.
func reader(who s3source.Identity) string {
	// arn:aws:sts::111122223333:assumed-role/NAME/SESSION
	part := strings.SplitN(who.ARN, ":", 6)
	if len(part) != 6 || part[2] != "sts" {
		return who.ARN
	}
	name := strings.Split(part[5], "/")
	if len(name) < 3 || name[0] != "assumed-role" {
		return who.ARN
	}
	return strings.Join([]string{"arn", part[1], "iam", "", part[4], "role/" + name[1]}, ":")
}

// list lists the trail's root.
func (s *Source) list(x *part, setup *aws.Setup) bool {
	tried := "listed " + s.where()
	var page listing.Page
	err := x.step(func(ctx context.Context) (err error) {
		page, err = s.Store.List(ctx, listing.Request{Prefix: root(s.Prefix), Delimiter: "/"})
		return err
	})
	switch {
	case err == nil:
		x.ok("list", tried, plural(len(page.Prefixes), "folder"))
		return true
	case fault.KindOf(err) == fault.Denied:
		x.fail("list", tried, err, s.refused(err, setup, toList))
	default:
		x.fail("list", tried, err, "")
	}
	return false
}

// silence reports whether an error says that nobody answered, and not what.
func silence(err error) bool {
	switch fault.KindOf(err) {
	case fault.Temporary, fault.Throttled, fault.Unreachable:
		return true
	}
	return false
}

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
