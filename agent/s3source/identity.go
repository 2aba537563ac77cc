package s3source

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/feature/ec2/imds"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go/logging"

	"github.com/trailpoll/trailpoll/agent/fault"
	"github.com/trailpoll/trailpoll/regions"
)

// Identity is who AWS takes the caller for.
type Identity struct {
	Account string // 12 digits
	ARN     string // of the user, or of the session of a role
}

// Partition returns the partition of the identity, "" if there is none.
func (i Identity) Partition() string {
	if part := strings.SplitN(i.ARN, ":", 3); len(part) == 3 && part[0] == "arn" {
		return part[1]
	}
	return ""
}

// Step is one way to the credentials that a source signs with: the type that is
// configured, and then each role.
type Step struct {
	// Name is the type of credentials, or the role's ARN.
	Name string
	// Identity is who AWS takes these credentials for; empty if that was not
	// found out.
	Identity Identity
	// Got is whether there are credentials, also where STS did not say whose.
	Got bool
	// Expires is when the credentials end; zero = they don't.
	Expires time.Time
	// Err is why there are no credentials, or why STS does not know them: a
	// fault.Error, or an error that wraps the context's.
	Err error
}

// ErrNoSTS is in the chain of Identity's error where no STS is known that
// belongs to the S3 of Config.Endpoint. It is not a fault of the credentials.
var ErrNoSTS = errors.New("the endpoint is not AWS's, and no STS is known that belongs to it")

// Identity asks STS who the source's credentials belong to (GetCallerIdentity,
// which needs no permission).
func (s *Source) Identity(ctx context.Context) (Identity, error) {
	p, err := s.credentials()
	if err != nil {
		return Identity{}, err
	}
	return s.identify(ctx, p, p.steps[len(p.steps)-1])
}

// Steps goes the way to the source's credentials, one step after the other, and
// ends with the first that fails. Each is asked for its identity.
func (s *Source) Steps(ctx context.Context) []Step {
	p, err := s.credentials()
	if err != nil {
		return []Step{{Name: string(s.cfg.Credentials.Type), Err: err}}
	}
	var steps []Step
	for _, at := range p.steps {
		out := Step{Name: string(s.cfg.Credentials.Type)}
		if at.role != nil {
			out.Name = at.role.ARN
		}
		got, err := at.Retrieve(ctx)
		if err != nil {
			out.Err = s.classify(ctx, call{op: opIdentity}, "", asCredentialsError(at, err))
			return append(steps, out)
		}
		out.Got = true
		if got.CanExpire {
			out.Expires = got.Expires.UTC()
		}
		out.Identity, out.Err = s.identify(ctx, p, at)
		steps = append(steps, out)
		if out.Err != nil && !errors.Is(out.Err, ErrNoSTS) {
			return steps
		}
	}
	return steps
}

func asCredentialsError(at *step, err error) error {
	if _, ok := errors.AsType[*credentialsError](err); ok {
		return err
	}
	return &credentialsError{at, err}
}

// credentials returns the way to the credentials.
func (s *Source) credentials() (*provider, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.prepare(); err != nil {
		return nil, err
	}
	return s.provider, nil
}

func (s *Source) identify(ctx context.Context, p *provider, at *step) (Identity, error) {
	what := call{op: opIdentity}
	if !s.cfg.hasSTS() {
		return Identity{}, &fault.Error{
			Kind: fault.Misconfigured, Op: what.String(), Err: ErrNoSTS, Hint: "set sts_endpoint, if there is one",
		}
	}
	got, err := at.Retrieve(ctx)
	if err != nil {
		return Identity{}, s.classify(ctx, what, "", asCredentialsError(at, err))
	}
	out, err := p.sts(fixed{got}).GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{})
	if err != nil {
		return Identity{}, s.classify(ctx, what, "", &credentialsError{at, err})
	}
	return Identity{Account: aws.ToString(out.Account), ARN: aws.ToString(out.Arn)}, nil
}

// hasSTS reports whether it is known where to ask STS: the keys of another S3
// implementation are nothing that AWS should be shown.
func (c *Config) hasSTS() bool {
	return c.Endpoint == "" || c.Credentials.STSEndpoint != "" || isAWS(c.Endpoint)
}

// isAWS reports whether a URL is one of AWS's, such as that of a VPC endpoint.
func isAWS(endpoint string) bool {
	u, err := url.Parse(endpoint)
	if err != nil {
		return false
	}
	for _, p := range regions.Partitions() {
		for _, suffix := range []string{p.Suffix, p.DualStackSuffix} {
			if strings.HasSuffix(strings.ToLower(u.Hostname()), "."+suffix) {
				return true
			}
		}
	}
	return false
}

// regionIn returns the region that the name of one of AWS's hosts holds, "" if
// it holds none: s3.us-gov-west-1.amazonaws.com,
// bucket.vpce-1a2b-3c4d.s3.eu-west-1.vpce.amazonaws.com.
func regionIn(endpoint string) string {
	if !isAWS(endpoint) {
		return ""
	}
	u, err := url.Parse(endpoint)
	if err != nil {
		return ""
	}
	// From the right: a bucket may be called like a region.
	labels := strings.Split(strings.ToLower(u.Hostname()), ".")
	for i := len(labels) - 1; i >= 0; i-- {
		if _, ok := regions.PartitionOf(labels[i]); ok {
			return labels[i]
		}
	}
	return ""
}

// stsRegion returns the region that requests to an endpoint of STS are signed
// for: the one in its name, else the region that the source is at.
func stsRegion(endpoint, home string) string {
	if r := regionIn(endpoint); r != "" {
		return r
	}
	return home
}

// home is the region where STS is asked, and where a bucket is asked for whose
// region nobody said.
func (p *provider) home() string {
	if p.cfg.home != "" {
		return p.cfg.home
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	// What a profile names is at least of the right partition.
	if at, ok := regions.PartitionOf(p.region); ok && at.ID != "aws" {
		return at.Main
	}
	return firstRegion
}

// locate finds out which partition the credentials are of, as far as anything
// but AWS itself can tell.
func (p *provider) locate(ctx context.Context) {
	if p.cfg.home != "" {
		return
	}
	region := ""
	switch p.cfg.Credentials.Type {
	case EC2Role:
		if out, err := p.imds(true).GetRegion(ctx, &imds.GetRegionInput{}); err == nil {
			region = out.Region
		}
	case AutoCredentials, Profile:
		// Told while credentials are fetched. If that fails, the call says why.
		_, _ = p.steps[0].Retrieve(ctx)
		return
	default:
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.region = region
}

// sts returns a client of STS.
func (p *provider) sts(c aws.CredentialsProvider) *sts.Client {
	home := p.home()
	o := sts.Options{
		Region: home, Credentials: c, HTTPClient: p.http, Retryer: newRetryer(), Logger: logging.Nop{}, AppID: appID,
	}
	if e := p.cfg.Credentials.STSEndpoint; e != "" {
		o.BaseEndpoint, o.Region = &e, stsRegion(e, home)
		return sts.New(o)
	}
	if p.cfg.FIPS {
		o.EndpointOptions.UseFIPSEndpoint = aws.FIPSEndpointStateEnabled
	}
	if p.cfg.DualStack {
		o.EndpointOptions.UseDualStackEndpoint = aws.DualStackEndpointStateEnabled
	}
	return sts.New(o)
}

// Endpoint is a server that a source speaks to.
type Endpoint struct {
	Service string // S3 or STS
	URL     string // https://host
}

// Endpoints returns the servers that the source speaks to, for a test of the
// way there: S3's, and STS's where roles are assumed. With region "auto" S3's
// is that of the region which has been found, else the one that is asked first.
func (s *Source) Endpoints() []Endpoint {
	s.mu.Lock()
	region := s.cfg.Region
	if s.conn != nil {
		region = s.conn.region
	}
	s.mu.Unlock()
	c := &s.cfg
	home := c.home
	if home == "" {
		home = firstRegion
	}
	if region == Auto {
		region = home
	}
	v := regions.Variant{FIPS: c.FIPS, DualStack: c.DualStack}
	var out []Endpoint
	if c.Endpoint != "" {
		out = append(out, Endpoint{"S3", c.Endpoint})
	} else if host, err := regions.S3Endpoint(region, v); err == nil {
		// As the SDK's rules have it: a dot in a bucket's name has no place
		// in a certificate.
		if !c.PathStyle && !strings.Contains(c.Bucket, ".") {
			host = c.Bucket + "." + host
		}
		out = append(out, Endpoint{"S3", "https://" + host})
	}
	if len(c.Credentials.Roles) == 0 && c.Credentials.Type != WebIdentity {
		return out
	}
	if c.Credentials.STSEndpoint != "" {
		return append(out, Endpoint{"STS", c.Credentials.STSEndpoint})
	}
	if host, err := regions.STSEndpoint(home, v); err == nil {
		out = append(out, Endpoint{"STS", "https://" + host})
	}
	return out
}

// Reach connects to a server as the source's own calls do: through the proxy,
// with its certificates. Any answer will do; its Date is returned (UTC, whole
// seconds), zero if it has none. The error is a fault.Error, or wraps ctx's.
func (s *Source) Reach(ctx context.Context, e Endpoint) (time.Time, error) {
	what := call{op: opReach, rest: e.URL}
	if _, err := s.credentials(); err != nil { // makes the client
		return time.Time{}, err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodHead, e.URL, nil)
	if err != nil {
		return time.Time{}, &fault.Error{Kind: fault.Misconfigured, Op: what.String(), Err: errors.New("it is not a URL"), Hint: "check endpoint and sts_endpoint"}
	}
	resp, err := s.http.Do(r)
	if err != nil {
		return time.Time{}, s.classify(ctx, what, "", err)
	}
	_ = resp.Body.Close()
	at, err := http.ParseTime(resp.Header.Get("Date"))
	if err != nil {
		return time.Time{}, nil //nolint:nilerr // reached it is
	}
	return at.UTC(), nil
}
