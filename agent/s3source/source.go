// Package s3source reads one bucket: it lists, gets and asks for the region,
// and says once, for everybody, what an error of S3 means. It is the only
// importer of the AWS SDK.
//
// Retries inside a call last seconds at most and never depend on how other
// calls went; everything longer is the caller's to decide.
package s3source

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/ratelimit"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go/logging"

	"github.com/trailpoll/trailpoll/agent/fault"
)

const (
	// firstRegion is where a bucket is asked for whose region nobody said.
	firstRegion = "us-east-1"
	// appID stands in the user agent of every call (app/trailpoll), and so in
	// the records that CloudTrail makes of them.
	appID = "trailpoll"

	attempts   = 3
	firstDelay = 100 * time.Millisecond
)

// Source is one bucket as read with one set of credentials. It makes its
// connections when they are first needed. Safe for concurrent use.
type Source struct {
	cfg Config

	mu       sync.Mutex // guards what follows
	http     *http.Client
	provider *provider
	conn     *connection // nil until the region is known
	asking   *question   // nil unless somebody is asking for the region
}

// connection is S3 in one region.
type connection struct {
	region string
	api    *s3.Client
}

// question is one attempt to find the bucket's region, for all who wait.
type question struct {
	done chan struct{}
	conn *connection
	err  error
}

// New returns a Source. It does no I/O. Its error is a fault.Error of kind
// Misconfigured for what can never work, such as FIPS endpoints where there
// are none.
func New(cfg Config) (*Source, error) {
	cfg, err := cfg.normalize()
	if err != nil {
		return nil, err
	}
	return &Source{cfg: cfg}, nil
}

// Close lets go of idle connections. Calls and bodies still open go on.
func (s *Source) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.http != nil {
		s.http.CloseIdleConnections()
	}
}

// BucketInfo is what S3 says of the bucket itself.
type BucketInfo struct {
	Region string
}

// Head asks S3 for the bucket itself (HeadBucket; needs s3:ListBucket). S3
// gives HEAD no reason: where it refuses, List says more.
func (s *Source) Head(ctx context.Context) (BucketInfo, error) {
	var info BucketInfo
	err := s.do(ctx, call{op: opHead, bucket: s.cfg.Bucket}, func(c *connection) error {
		region, err := s.head(ctx, c)
		info.Region = region
		return err
	})
	if err != nil {
		return BucketInfo{}, err
	}
	return info, nil
}

// head returns the region that S3 names, also beside an error, and without one
// the connection's where it names none.
func (s *Source) head(ctx context.Context, c *connection) (string, error) {
	out, err := c.api.HeadBucket(ctx, &s3.HeadBucketInput{
		Bucket: &s.cfg.Bucket, ExpectedBucketOwner: s.owner(),
	})
	if err != nil {
		region := ""
		if a, ok := answerOf(err); ok {
			region = a.header.Get(regionHeader)
		}
		return region, err
	}
	if region := aws.ToString(out.BucketRegion); region != "" {
		return region, nil
	}
	return c.region, nil
}

// do makes one call, in the bucket's region. Where S3 says that the bucket is
// elsewhere and the region is ours to find, the call is made once more there.
func (s *Source) do(ctx context.Context, what call, f func(*connection) error) error {
	c, err := s.connect(ctx, what)
	if err != nil {
		return err
	}
	err = s.classify(ctx, what, c.region, f(c))
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*fault.Error](err); ok && e.Kind == fault.WrongRegion &&
		s.cfg.Region == Auto && e.Region != "" && e.Region != c.region {
		if c, err = s.move(what, e.Region); err != nil {
			return err
		}
		err = s.classify(ctx, what, c.region, f(c))
	}
	if fault.KindOf(err) == fault.BadCredentials {
		s.forgetCredentials()
	}
	return err
}

// forgetCredentials has them looked for again by the next call.
func (s *Source) forgetCredentials() {
	s.mu.Lock()
	p := s.provider
	s.mu.Unlock()
	if p != nil {
		p.forget()
	}
}

// connect returns the connection to the bucket's region, which it finds first
// if it must. Those who come while somebody is asking wait for that answer.
func (s *Source) connect(ctx context.Context, what call) (*connection, error) {
	for {
		s.mu.Lock()
		if s.conn != nil {
			defer s.mu.Unlock()
			return s.conn, nil
		}
		if s.cfg.Region != Auto {
			defer s.mu.Unlock()
			return s.open(what, s.cfg.Region)
		}
		q := s.asking
		if q == nil {
			q = &question{done: make(chan struct{})}
			s.asking = q
			s.mu.Unlock()
			s.ask(ctx, q, what)
			return q.conn, q.err
		}
		s.mu.Unlock()

		select {
		case <-q.done:
		case <-ctx.Done():
			return nil, what.ended(ctx)
		}
		if q.err != nil && !isContext(q.err) {
			return nil, q.err
		}
		// Found, or whoever asked gave up: see again.
	}
}

// ask finds the bucket's region and ends the question. A failure is not kept:
// the next call asks again.
func (s *Source) ask(ctx context.Context, q *question, what call) {
	region, err := s.find(ctx, what)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		q.conn, err = s.open(what, region)
	}
	q.err = err
	s.asking = nil
	close(q.done)
}

// find asks S3 for the bucket's region. S3 names it to everybody: "HeadBucket
// returns the bucket's location … also when the request is denied"
// (GetBucketLocation in the S3 API reference).
func (s *Source) find(ctx context.Context, what call) (string, error) {
	s.mu.Lock()
	c, err := s.dial(what, firstRegion)
	s.mu.Unlock()
	if err != nil {
		return "", err
	}
	region, err := s.head(ctx, c)
	if region != "" {
		return region, nil
	}
	a, answered := answerOf(err)
	err = s.classify(ctx, what, c.region, err)
	if answered && s.cfg.Endpoint != "" && a.status < 500 && !a.isRedirect() {
		// Other implementations may name no region to HEAD. The call itself
		// says what is wrong, if anything is.
		return firstRegion, nil
	}
	return "", err
}

// move makes another region the bucket's.
func (s *Source) move(what call, region string) (*connection, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn != nil && s.conn.region == region {
		return s.conn, nil
	}
	return s.open(what, region)
}

// open makes a region the bucket's. s.mu is held.
func (s *Source) open(what call, region string) (*connection, error) {
	c, err := s.dial(what, region)
	if err != nil {
		return nil, err
	}
	s.conn = c
	return c, nil
}

// dial returns a connection to a region. s.mu is held; nothing is sent.
func (s *Source) dial(what call, region string) (*connection, error) {
	if err := s.cfg.reachable(region); err != nil {
		return nil, &fault.Error{
			Kind: fault.Misconfigured, Op: what.String(), Err: err,
			Hint: "leave out fips or dual_stack, or name the region",
		}
	}
	if s.http == nil {
		client, err := newHTTPClient(&s.cfg)
		if err != nil {
			return nil, err
		}
		s.http = client
		s.provider = &provider{cfg: &s.cfg, http: client}
	}

	var options s3.Options
	options.Region = region
	options.AppID = appID
	options.HTTPClient = s.http
	options.Credentials = s.provider
	options.Logger = logging.Nop{}
	options.UsePathStyle = s.cfg.PathStyle
	if s.cfg.Endpoint != "" {
		options.BaseEndpoint = &s.cfg.Endpoint
	}
	if s.cfg.FIPS {
		options.EndpointOptions.UseFIPSEndpoint = aws.FIPSEndpointStateEnabled
	}
	if s.cfg.DualStack {
		options.EndpointOptions.UseDualStackEndpoint = aws.DualStackEndpointStateEnabled
	}
	// The agent checks every object's own CRC; S3's checksum would be a
	// second pass over the bytes.
	options.ResponseChecksumValidation = aws.ResponseChecksumValidationWhenRequired
	options.DisableLogOutputChecksumValidationSkipped = true
	options.DisableMultiRegionAccessPoints = true
	options.Retryer = newRetryer()
	return &connection{region: region, api: s3.New(options)}, nil
}

// newRetryer returns the retries inside a call, of S3 and of what credentials
// come from.
func newRetryer() aws.Retryer {
	return retry.NewStandard(func(o *retry.StandardOptions) {
		o.MaxAttempts = attempts
		// The SDK's bucket of retry tokens is shared by all calls of a client:
		// a bad hour would leave the good one after it without retries.
		o.RateLimiter = ratelimit.None
		o.Backoff = retry.BackoffDelayerFunc(backoff)
		o.Retryables = append([]retry.IsErrorRetryable{retry.IsErrorRetryableFunc(notTimeouts)}, o.Retryables...)
	})
}

// backoff is 100, 200, … ms, less up to a half. The caller's context ends it.
func backoff(attempt int, _ error) (time.Duration, error) {
	d := firstDelay << min(max(attempt-1, 0), 4)
	return d - rand.N(d/2), nil
}

// notTimeouts leaves to the caller what took its full time already.
func notTimeouts(err error) aws.Ternary {
	if e, ok := errors.AsType[interface {
		error
		Timeout() bool
	}](err); ok && e.Timeout() {
		return aws.FalseTernary
	}
	return aws.UnknownTernary
}

func (s *Source) owner() *string {
	if s.cfg.BucketOwner == "" {
		return nil
	}
	return &s.cfg.BucketOwner
}

func (s *Source) payer() types.RequestPayer {
	if s.cfg.RequesterPays {
		return types.RequestPayerRequester
	}
	return ""
}

// bucketName returns s3://bucket/rest as an error shows it: what stands in a
// key can't break out of a line.
func bucketName(bucket string, rest ...string) string {
	name := "s3://" + strings.Join(append([]string{bucket}, rest...), "/")
	if quoted := strconv.Quote(name); quoted != `"`+name+`"` {
		return quoted
	}
	return name
}
